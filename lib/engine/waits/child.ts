/** Children: runs that a body starts. Their ids follow from the parent's and from the call, so that a crash anywhere leaves exactly one. */
import { createHash } from "node:crypto";
import { argumentsAddress, referenceAddress } from "../../core/address.ts";
import type { Ended, Recorded } from "../../core/claim.ts";
import type { Started } from "../../core/context.ts";
import { RunConflictError } from "../../core/errors.ts";
import { checkInput } from "../../core/schema.ts";
import type { StartOptions, WorkflowDefinition } from "../../core/types.ts";
import { leased } from "../../db/leased.ts";
import { madeBefore, toStartRow } from "../../db/start-row.ts";
import type { StartAnswer } from "../../db/writes.ts";
import type { Call, Entry, Outcome } from "../call.ts";
import type { Pass } from "../pass.ts";
import { Handles } from "../promise.ts";
import { type Awaited, beginEnd, ringEnd, settleEnd } from "./end.ts";
import { waited } from "./wait.ts";

const LONGEST_ID = 255;

/** Starts a child; its id is durable when the promise resolves. */
export function startCall(
  pass: Pass,
  definition: WorkflowDefinition,
  options: StartOptions,
  args: unknown[],
  toHandle: (started: Started) => unknown,
): Promise<unknown> {
  return new ChildCall(pass, definition, options, args, toHandle).enter();
}

/** Runs a child, and returns its result: one call, and one slot. */
export function childCall(
  pass: Pass,
  definition: WorkflowDefinition,
  options: StartOptions,
  args: unknown[],
): Promise<unknown> {
  return new ChildCall(pass, definition, options, args, null).enter();
}

class ChildCall implements Entry {
  readonly #pass: Pass;
  /** What the body is given for a start; null: it waits for the result. */
  readonly #toHandle: ((started: Started) => unknown) | null;
  readonly #definition: WorkflowDefinition;
  readonly #options: StartOptions;
  readonly #args: unknown[];
  readonly #hash: string;
  readonly slot: string;
  readonly name: string;
  readonly #id: string;
  readonly shared: boolean;
  /** Two calls with the same id are one. */
  readonly #same: Call | undefined;

  constructor(
    pass: Pass,
    definition: WorkflowDefinition,
    options: StartOptions,
    args: unknown[],
    toHandle: ((started: Started) => unknown) | null,
  ) {
    const { name } = definition;
    this.#pass = pass;
    this.#toHandle = toHandle;
    this.name = name;
    this.#definition = definition;
    this.#options = options;
    this.#args = args;
    this.#hash = pass.binding.hash(args, () => `input of workflow "${name}", a child of run "${pass.run.id}"`);
    const named = options.id !== undefined;
    const address = named
      ? referenceAddress(this.kind, name, options.id!)
      : argumentsAddress(this.kind, name, this.#hash);
    this.shared = named || pass.definition.repeat === "cached";
    this.slot = this.shared ? `${address}#0` : pass.take(address);
    this.#same = this.shared ? pass.shared(this.slot) : undefined;
    this.#id =
      options.id ?? childId(pass.run.id, this.slot, pass.claim.reopened.filter((slot) => slot === this.slot).length);
  }

  get kind(): "start" | "child" {
    return this.#toHandle ? "start" : "child";
  }

  enter(): Promise<unknown> {
    const same = this.#same;
    if (same) return this.#differs((same.entry as ChildCall).#hash) ? this.#conflict() : same.promise;
    return this.#pass.enter(this);
  }

  hasNews(): boolean {
    return this.kind === "child" && this.#pass.ends.get(this.#id) !== undefined;
  }

  ring(call: Call): void | Promise<void> {
    return ringEnd(this.#pass, call, this.#awaited());
  }

  /** Another input under the same id, unless what there is will do. */
  #differs(hash: string | null): boolean {
    return this.#options.onConflict !== "return_existing" && hash !== null && hash !== this.#hash;
  }

  #conflict(): Promise<unknown> {
    const refused = new Handles();
    const text = `run "${this.#pass.run.id}": child "${this.#id}" of workflow "${this.#definition.name}" was started with another input. Give each input an id of its own, or say onConflict: "return_existing"`;
    refused.reject(new RunConflictError(this.#id, text));
    return refused.promise;
  }

  replay(recorded: Recorded): Outcome["settle"] {
    if (this.#options.id !== undefined && this.#differs(recorded.hash)) {
      return (deferred) => void this.#conflict().catch((error) => deferred.reject(error));
    }
    const { outcome, value, slot, attempt } = recorded;
    if (outcome === "completed" && this.kind === "start") return this.#gives(idOf(value!));
    const { codec } = this.#pass.ports;
    const text = codec.open(value!, this.#whatError, this.#pass.binding.placeOf(slot, attempt));
    // A child that could not be started has no end: its error stands alone.
    if (outcome === "failed" && !isEnd(text)) return this.#throws(text);
    return settleEnd(this.#pass, JSON.parse(text) as Ended, [slot]);
  }

  #awaited(): Awaited {
    return { id: this.#id, origins: [], timeoutMs: null, hash: this.#hash };
  }

  #gives(id: string): Outcome["settle"] {
    const handle = this.#toHandle!({ id, origin: this.slot });
    return (deferred) => deferred.resolve(handle);
  }

  get #whatError(): string {
    return `error of child "${this.#id}"`;
  }

  /** From an opened text. */
  #throws(text: string): Outcome["settle"] {
    const error = this.#pass.ports.codec.decodePlain(text, this.#whatError);
    this.#pass.escaped.threw(error, this.slot);
    return (deferred) => deferred.reject(error);
  }

  async begin(call: Call): Promise<void> {
    const pass = this.#pass;
    // Begun by an earlier claim: it has a row for its wait.
    if (pass.history.wait(this.slot)) return beginEnd(pass, call, this.#awaited());
    pass.working(call);
    const started = pass.ports.clock.now();
    let starting: Promise<StartAnswer | undefined>;
    try {
      starting = this.#write(await checkInput(this.#definition, this.#args));
    } catch (error) {
      return this.#fail(call, started, error);
    }
    // An id that follows from the call cannot be refused: the wait for the end rides along, and perhaps the suspension.
    const waiting =
      this.kind === "child" && this.#options.id === undefined ? beginEnd(pass, call, this.#awaited()) : null;
    const answer = await starting;
    if (!answer || pass.over) return;
    if (answer.verdict === "conflict" || answer.verdict === "circle")
      return this.#fail(call, started, this.#refusal(answer));
    if (this.kind === "child") return waiting ?? beginEnd(pass, call, this.#awaited());
    const { row } = waited("completed", JSON.stringify({ id: this.#id }), started);
    pass.ready(call, { settle: this.#gives(this.#id), write: { kind: "record", row: { ...row, hash: this.#hash } } });
  }

  #write(args: unknown[]): Promise<StartAnswer | undefined> {
    const { ledger, ports } = this.#pass;
    const made = toStartRow(this.#definition, { ...this.#options, id: this.#id }, args, ports.codec);
    // Of a claim, also where it is leased at birth: its end is followed.
    const row = { ...made, ...ledger.claim };
    const started = leased(row, ports.slots, (start, onAside) => ledger.write("start", start, onAside));
    return started.then((answer) => {
      const before = madeBefore(answer, row, args, ports.codec);
      return before ? ledger.write("start", before) : answer;
    });
  }

  #refusal({ verdict, workflow, state }: StartAnswer): RunConflictError {
    const what = `child "${this.#id}" of run "${this.#pass.run.id}"`;
    if (verdict === "circle") {
      return new RunConflictError(
        this.#id,
        `${what} would wait for itself: that run waits for this one. Choose another id`,
      );
    }
    const why =
      workflow === this.#definition.name ? "was started with other input" : `belongs to workflow "${workflow}"`;
    const text = `${what} cannot be started: the id is taken and ${why} (it is ${state}). Choose another id, or say onConflict: "return_existing"`;
    return new RunConflictError(this.#id, text);
  }

  /** It cannot be started: that is its outcome. */
  #fail(call: Call, started: number, thrown: unknown): void {
    const { codec } = this.#pass.ports;
    const place = this.#pass.binding.placeOf(this.slot);
    const error = codec.encodeError(thrown, this.#whatError, place);
    if (this.#pass.over) return;
    const { row } = waited("failed", error, started);
    this.#pass.ready(call, {
      settle: this.#throws(codec.open(error, this.#whatError, place)),
      write: { kind: "record", row: { ...row, hash: this.#hash } },
    });
  }
}

/** An end as it is recorded, which no stored error looks like. */
const isEnd = (text: string): boolean => text.startsWith('{"id":');

/** The child that was started: a fork has its own id, and shares the children of the run that it was made from. */
const idOf = (text: string): string => (JSON.parse(text) as { id: string }).id;

/** The parent's id and the call's slot; a number more when a retry of the workflow set the slot aside; a hash when that is too long. */
export function childId(parent: string, slot: string, again: number): string {
  const id = `${parent}/${slot}${again > 0 ? `~${again}` : ""}`;
  if (Buffer.byteLength(id) <= LONGEST_ID) return id;
  return `child-${createHash("sha256").update(id).digest("hex")}`;
}
