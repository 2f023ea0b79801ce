/** Workflows and their versions: each form made into one definition. */
import { PerdureError } from "../core/errors.ts";
import { checkChoice, checkKeys, checkName, checkNamed, shorten } from "../core/options.ts";
import { startChild } from "./child.ts";
import { type Client, coreOf } from "./client.ts";
import { type Events, map, multicaster, toCore } from "./event.ts";
import type { AnyVersion, Common, Replaying, RunOptions, Workflow, WorkflowVersion } from "./forms.ts";
import { findHandle, makeHandle, type WorkflowRunHandle } from "./handle.ts";
import { withOptions } from "./options.ts";
import {
  configured,
  type Internals,
  internalsOf,
  runId,
  startError,
  toArguments,
  toWorkflow,
  VERSION,
  type VersionDefinition,
} from "./version.ts";

/** A workflow of one version, in the oldest form. The first overload, so that an unannotated `run({ workflowRun, payload })` has its types. */
export function workflow<Input = void, Output = void, E extends Events = Record<never, never>>(
  options: RunOptions<Input, Output, E>,
): WorkflowVersion<Input, Output, null, E>;
/**
 * Declares a workflow. Its code must ask for the same things in every replay: the clock, randomness and the world belong into tasks.
 *
 * @throws PERDURE_OPTION, PERDURE_NAME.
 * @example
 * const greetV1 = workflow({ name: "greet" }).v("1.0.0", { async handler(run, name: string) { await sendMail.start(run, name); } });
 */
export function workflow<Context = null>(options: { name: string } & Replaying): Workflow<Context>;
export function workflow(options: ({ name: string } & Replaying) | RunOptions<any, any, any>): unknown {
  const { options: given, where } = checkNamed(options, [...VERSION_KEYS, "name", "version"], "workflow");
  const { name, version, ...rest } = given as RunOptions<any, any, any>;
  checkName(name, "workflow name");
  if (version !== undefined || rest.run !== undefined) return makeVersion(define(name, version, rest, {}));
  const defaults = checkKeys(rest as Replaying, ["repeat", "replay"], where);
  const versions: AnyVersion[] = [];
  const v = (id: string, versionOptions: AnyForm): AnyVersion => {
    const made = makeVersion(define(name, id, versionOptions, defaults));
    if (versions.some(({ versionId }) => versionId === id)) {
      throw new PerdureError("PERDURE_DUPLICATE", `${where} has a version "${id}" already; give this one another`);
    }
    versions.push(made);
    return made;
  };
  return { name, versions, v };
}

const VERSION_KEYS = ["handler", "exec", "run", "events", "retry", "opts", "schema", "repeat", "replay"];

type AnyForm = Common<any, any, any> & { handler?: Handler; exec?: Handler; run?: (call: any) => unknown };
type Handler = (first: any, second: any) => unknown;

function define(name: string, version: string, options: AnyForm, defaults: Replaying): Internals {
  const where = `workflow "${name}" ${shorten(version)}`;
  const given = checkKeys(options, VERSION_KEYS, where);
  const { handler, exec, run, schema } = given;
  const fn = handler ?? exec ?? run;
  if (typeof fn !== "function")
    throw new PerdureError("PERDURE_OPTION", `${where} needs a handler, not ${shorten(fn)}`);
  const { repeat = defaults.repeat, replay = defaults.replay } = given;
  const definition: VersionDefinition = {
    name,
    version: checkName(version, `version of workflow "${name}"`),
    // Called on the options, so that `this` is what it was.
    handler: handler
      ? (workflowRun, input) => options.handler!(workflowRun, input)
      : exec
        ? (workflowRun, input) => options.exec!(input, workflowRun)
        : (workflowRun, payload) => options.run!({ workflowRun, payload }),
    events: toCore(given.events ?? {}),
    schema: schema === undefined ? undefined : checkKeys(schema, ["input", "output"], `schema of ${where}`),
    retry: given.retry ?? checkKeys(given.opts ?? {}, ["retry"], `opts of ${where}`).retry,
    repeat:
      repeat === undefined
        ? undefined
        : checkChoice<"again" | "cached">(repeat, ["again", "cached"], `repeat of ${where}`),
    replay:
      replay === undefined
        ? undefined
        : checkChoice<"strict" | "flexible">(replay, ["strict", "flexible"], `replay of ${where}`),
  };
  return { definition, options: {}, core: toWorkflow(definition, null) };
}

function makeVersion(internals: Internals): AnyVersion {
  const { definition, options } = internals;
  const { name, version, events } = definition;
  const configure = (...given: unknown[]) => makeVersion({ ...internals, options: withOptions(options, given, "run") });
  const idOf = (reference: unknown): string => runId(definition, reference);
  const made: AnyVersion & { [VERSION]: Internals } = {
    name,
    versionId: version,
    events: map(events, (event) => multicaster(event, idOf)),
    with: configure as AnyVersion["with"],
    opt: configure,
    withOptions: configure,
    start: (client, ...[input]) => start(client, internals, input),
    startAsChild: (run, ...[input]) => startChild(run, internals, input),
    enqueue: (client, call = {}) => {
      const where = `enqueue() of workflow "${name}"`;
      const { payload, idempotencyKey } = checkKeys(call, ["payload", "idempotencyKey"], where);
      return made.with({ ...(idempotencyKey === undefined ? {} : { idempotencyKey }) }).start(client, payload);
    },
    getHandleById: async (client, id) => findHandle(id, definition, coreOf(client)),
    getHandleByReferenceId: async (client, reference) => findHandle(idOf(reference), definition, coreOf(client)),
    [VERSION]: internals,
  };
  return made;
}

async function start(client: Client<any>, internals: Internals, input: unknown): Promise<WorkflowRunHandle<any, any>> {
  const core = coreOf(client);
  const startable = configured(internals);
  const run = await core
    .use((perdure) => perdure.start(startable, ...toArguments(input)))
    .catch((error: unknown) => Promise.reject(startError(internals, error)));
  const { trigger } = internals.options as { trigger?: { type: string } };
  const status = trigger?.type === "delayed" ? "scheduled" : "queued";
  const handle = makeHandle(run.id, internals.definition, core, { status });
  // The run of a reference may have been there.
  if (internals.options.reference !== undefined) await handle.refresh();
  return handle;
}

/** The versions that a worker is given: versions, or workflows with all of theirs. */
export function versionsOf(given: readonly unknown[], where: string): Internals[] {
  return given.flatMap((each) => {
    const { versions } = (each ?? {}) as Partial<Workflow<any>>;
    return (Array.isArray(versions) ? versions : [each]).map((version) => {
      const internals = internalsOf(version, where);
      const one = ["reference", "trigger"].find((option) => internals.options[option] !== undefined);
      if (one === undefined) return internals;
      const text = `${where} was given a copy of workflow "${internals.definition.name}" that names one particular run (${one}); pass the version itself`;
      throw new PerdureError("PERDURE_OPTION", text);
    });
  });
}
