/**
 * READ THIS FIRST: one claimed run, from its history to a recorded outcome.
 *
 *   load      the rest of a long history, the arguments
 *   advance   a pass runs the body: replays what is recorded, does what is new (pass.ts)
 *   conclude  what the body came to becomes the run's next state
 *
 * A pass that ends suspended has given its run up in the same write that checked for news; a pass that lost its claim writes nothing.
 */

import type { Claim } from "../core/claim.ts";
import { said } from "../core/codec-refuse.ts";
import { PerdureError, TimeoutError } from "../core/errors.ts";
import { quietly } from "../core/quiet.ts";
import { checkRetry, delayAfter, isNonRetryable, type Retry, type RetryPlan } from "../core/retry.ts";
import { validate } from "../core/schema.ts";
import { ancestorsOf, inputOf, type Place, resultOf } from "../core/stored-place.ts";
import type { WorkflowDefinition } from "../core/types.ts";
import { Pass } from "./pass.ts";
import type { Ending, EnginePorts } from "./ports.ts";
import { inBody } from "./run-body.ts";

/** What a finished run came to, for those who wait for it in this process. */
export interface Finish {
  readonly state: "completed" | "failed";
  readonly value: string;
  readonly attempt: number;
}

export interface ExecutePorts extends EnginePorts {
  /** The run is not in work here any more. `finish`: it has ended for good. */
  readonly onGone: (pass: Pass, finish: Finish | null) => void;
  /** A run is to be tried again at an instant, in ms since 1970: whoever claims it then is not to wait for a poll. */
  readonly onDelayed: (due: number) => void;
  /** An end that another run may wait for is being written: a claim in the same batch finds that run. */
  readonly onFollowed: () => void;
  /** This process holds a run that it could not conclude. */
  readonly onStray: () => void;
}

/** What works on claims. An end is told to the ports, and then concluded. */
export function executor(ports: ExecutePorts): (claim: Claim, definition: WorkflowDefinition) => Pass {
  const onEnd = (pass: Pass, ending: Ending): void => {
    ports.onEnd(pass, ending);
    if (ending.how !== "suspended") void conclude(pass, ending, ports);
  };
  const passPorts = { ...ports, onEnd };
  return (claim, definition) => execute(claim, definition, passPorts);
}

/** Works on a claim. Returns the pass. */
function execute(claim: Claim, definition: WorkflowDefinition, ports: EnginePorts): Pass {
  const pass = new Pass(claim, definition, ports);
  try {
    pass.start(argumentsOf(claim, ports));
  } catch (error) {
    pass.end({ how: "refused", error });
  }
  return pass;
}

function argumentsOf({ id, args, fork, schedule }: Claim, { codec }: EnginePorts): unknown[] {
  const place = inputOf(id, ancestorsOf(fork), schedule ?? fork?.schedule);
  const decoded = codec.decode(args, `input of run "${id}"`, place);
  if (Array.isArray(decoded)) return decoded;
  const text = `input of run "${id}": the stored value cannot be read back: it is no array of arguments`;
  throw new PerdureError("PERDURE_DECODE", text);
}

/** Reads the rest of a history that was too long for the claim. */
export async function load(claim: Claim, ports: EnginePorts): Promise<Claim> {
  const history = [...claim.history];
  for (let more = claim.more; more; ) {
    const page = await ports.loadMore(claim.key, history.at(-1)!);
    history.push(...page.history);
    more = page.more;
  }
  return { ...claim, history, more: false };
}

/** The text of an error, as a column takes it. */
const reasonOf = (error: unknown): string => said(error).replaceAll("\0", "\\0");

const resultPlace = (pass: Pass): Place => resultOf(pass.run.id, pass.claim.attempt);

/** Writes what the body came to. */
async function conclude(pass: Pass, ending: Ending, ports: ExecutePorts): Promise<void> {
  const { refusal } = pass.ledger;
  try {
    const finish = await write(pass, ending, ports);
    // The last of what it recorded, or its end.
    if (!finish && !refusal && pass.ledger.refusal) throw pass.ledger.refusal.error;
    ports.onGone(pass, finish);
    if (ending.how === "replayed") ports.onStray();
  } catch (error) {
    // Handed back, it would come to the same again, and for ever.
    ports.logger.error(`perdure: ${named(pass)} could not be concluded; it is blocked`, error, fieldsOf(pass));
    const blocked = await pass.ledger.write("block", { reason: `could not be concluded: ${reasonOf(error)}` });
    ports.onGone(pass, null);
    if (!blocked) ports.onStray();
  }
}

function write(pass: Pass, ending: Ending, ports: ExecutePorts): Promise<Finish | null> | null {
  switch (ending.how) {
    case "settled":
      return "thrown" in ending.settled
        ? fail(pass, ending.settled.thrown, ports)
        : complete(pass, ending.settled.value, ports);
    case "late":
      return finishWith(pass, "failed", timeoutOf(pass), ports);
    case "blocked":
      return block(pass, ending.reason, ports);
    case "refused":
      return block(
        pass,
        `${isOfDatabase(ending.error) ? "not written" : "undecodable"}: ${reasonOf(ending.error)}`,
        ports,
      );
    case "unprepared":
      return postpone(pass, ending.error, ports);
    case "lost":
    case "replayed":
    case "suspended":
      return null;
    default:
      return ending satisfies never;
  }
}

/** The database could not take a row of the run. */
const isOfDatabase = (error: unknown): boolean => error instanceof PerdureError && error.code === "PERDURE_DATABASE";

/** The run, as a line of the log names it, and the fields of that line. */
const named = ({ run }: Pass): string => `run "${run.id}" of workflow "${run.workflow}"`;
const fieldsOf = ({ run }: Pass): object => ({ runId: run.id, workflow: run.workflow });

/** Whoever waits for the result of a blocked run waits without end, so a person is told. */
async function block(pass: Pass, reason: string, { logger }: ExecutePorts): Promise<null> {
  if (await pass.ledger.write("block", { reason })) {
    logger.error(`perdure: ${named(pass)} is blocked: ${reason}`, undefined, fieldsOf(pass));
  }
  return null;
}

/** Hands back a run whose context could not be made. It is no attempt of the workflow, and costs none. */
async function postpone(pass: Pass, error: unknown, ports: ExecutePorts): Promise<null> {
  const delay = ports.delays.next(pass.run.id);
  const reason = `its context could not be made: ${reasonOf(error)}`;
  const answer = await pass.ledger.write("postpone", { reason, delay });
  if (!answer) return null;
  const text = `perdure: ${named(pass)} waits ${delay} ms, as the function "context" of new Perdure() threw`;
  ports.logger.error(text, error, fieldsOf(pass));
  if (answer.due_ms !== null) ports.onDelayed(answer.due_ms);
  return null;
}

function timeoutOf(pass: Pass): TimeoutError {
  return new TimeoutError(`${named(pass)} took longer than its timeout, waits included`);
}

function complete(pass: Pass, value: unknown, ports: ExecutePorts): Promise<Finish | null> {
  const { floating } = pass;
  if (floating.length > 0) return finishWith(pass, "failed", floatingError(pass, floating), ports);
  if (!pass.definition.output) return succeed(pass, value, ports);
  return checked(pass, value).then(
    (result) => succeed(pass, result, ports),
    (error) => finishWith(pass, "failed", error, ports),
  );
}

const resultName = ({ run }: Pass): string => `result of run "${run.id}"`;

/** The result as the workflow's schema returns it. */
const checked = async (pass: Pass, value: unknown): Promise<unknown> =>
  inBody(pass, () => quietly(() => validate(pass.definition.output, value, resultName(pass))));

function succeed(pass: Pass, value: unknown, ports: ExecutePorts): Promise<Finish | null> {
  let text: string;
  try {
    text = ports.codec.encode(value, resultName(pass), resultPlace(pass));
  } catch (error) {
    return finishWith(pass, "failed", error, ports);
  }
  return finish(pass, "completed", text, null, ports);
}

function floatingError({ run }: Pass, floating: readonly string[]): PerdureError {
  const text = `run "${run.id}": the workflow returned, but nobody awaited ${floating.join(", ")}. Await every durable call, for example with Promise.all`;
  return new PerdureError("PERDURE_FLOATING", text);
}

/** Tries the workflow again as its policy says, or fails the run. */
async function fail(pass: Pass, thrown: unknown, ports: ExecutePorts): Promise<Finish | null> {
  const { delay, error: last } = await retryDelay(pass, thrown);
  if (delay === null) return finishWith(pass, "failed", last, ports);
  const error = ports.codec.encodeError(thrown, `error of run "${pass.run.id}"`, resultPlace(pass));
  const reopened = JSON.stringify(pass.escaped.slotsOf(thrown));
  const answer = await pass.ledger.write("retry", { attempt: pass.claim.attempt, error, reopened, delay });
  if (!answer) return null;
  const text = `perdure: attempt ${pass.claim.attempt} of ${named(pass)} failed; the next comes in ${delay} ms`;
  ports.logger.info(text, thrown, fieldsOf(pass));
  if (answer.due_ms !== null) ports.onDelayed(answer.due_ms);
  return null;
}

/** The delay until the next attempt, null: none. What shouldRetry throws takes the place of the error. */
async function retryDelay(pass: Pass, error: unknown): Promise<{ delay: number | null; error: unknown }> {
  const plan = planOf(pass);
  const delay = delayAfter(plan, pass.claim.attempt);
  if (delay === null || isNonRetryable(error)) return { delay: null, error };
  try {
    return {
      delay: plan.shouldRetry && !(await inBody(pass, () => quietly(() => plan.shouldRetry!(error)))) ? null : delay,
      error,
    };
  } catch (judged) {
    return { delay: null, error: judged };
  }
}

/** The policy that the run was started with wins over the workflow's; a function cannot be stored and stays the workflow's. */
function planOf(pass: Pass): RetryPlan {
  const { plan, name } = pass.definition;
  const { options } = pass.claim;
  const stored =
    options === null
      ? undefined
      : (pass.ports.codec.decodePlain(options, `options of run "${pass.run.id}"`) as { retry?: Retry }).retry;
  return stored ? { ...checkRetry(stored, `run of workflow "${name}"`), shouldRetry: plan.shouldRetry } : plan;
}

async function finishWith(pass: Pass, state: "failed", error: unknown, ports: ExecutePorts): Promise<Finish | null> {
  const value = ports.codec.encodeError(error, `error of run "${pass.run.id}"`, resultPlace(pass));
  const reopened = JSON.stringify(pass.escaped.slotsOf(error));
  const finished = await finish(pass, state, value, reopened, ports);
  // The failure of a child is its parent's business, which may well have meant it.
  const level = pass.claim.followed ? "info" : "warn";
  if (finished) ports.logger[level](`perdure: ${named(pass)} failed`, error, fieldsOf(pass));
  return finished;
}

function finish(
  pass: Pass,
  state: Finish["state"],
  value: string,
  reopened: string | null,
  { onFollowed }: ExecutePorts,
): Promise<Finish | null> {
  const { attempt, followed } = pass.claim;
  const finished = new Promise<Finish | null>((resolve) => {
    const written = (answer: unknown): void => resolve(answer ? { state, value, attempt } : null);
    pass.ledger.send("finish", { state, value, reopened }, written);
  });
  if (followed) onFollowed();
  return finished;
}
