/** Sending events to runs. */
import { randomUUID } from "node:crypto";
import { PerdureError, RunFinishedError } from "../core/errors.ts";
import { checkArray, checkBoolean, checkKeys, checkName, shorten } from "../core/options.ts";
import { validate } from "../core/schema.ts";
import type { StoredCodec } from "../core/stored.ts";
import { mailOf } from "../core/stored-place.ts";
import type { EventDefinition, Received, Sends } from "../core/types.ts";
import type { SendAnswer, SendRow, Writer } from "../db/writes.ts";

/** An event as `event()` returns it. */
export interface EventLike<T, S = T> extends Sends<S> {
  readonly name: string;
  /** Waits for the next one, inside a workflow. */
  wait(): Promise<Received<T>>;
}

/** What `send()` may be told. */
export interface SendOptions {
  /** Names this event within the run and event name: a second one with the same reference is dropped. */
  reference?: string | undefined;
  /** True: an event to a finished run is dropped without an error. Default false. */
  ignoreFinished?: boolean | undefined;
}

/** What follows the event: its data, which may be left out only where it is null, and the options. */
export type SendArguments<T> = [T] extends [null]
  ? [data?: T, options?: SendOptions]
  : [data: T, options?: SendOptions];

/** What became of an event that was sent to many runs. */
export interface SentMany {
  /** The ids of the runs that have it, also where a reference was used before. */
  readonly sent: string[];
  /** The others, each with why. */
  readonly failed: { readonly id: string; readonly error: PerdureError }[];
}

export interface SenderParts {
  readonly flusher: Writer;
  readonly codec: StoredCodec;
  readonly definitionOf: (event: unknown) => EventDefinition | undefined;
  /** An event for this run is on its way. */
  readonly onSent?: (runId: string) => void;
}

export class Sender {
  readonly #parts: SenderParts;

  constructor(parts: SenderParts) {
    this.#parts = parts;
  }

  /** The same sender, writing elsewhere: in the caller's own transaction. */
  over(flusher: Writer): Sender {
    const { onSent: _, ...parts } = this.#parts;
    return new Sender({ ...parts, flusher });
  }

  /** Resolves when the event is in the run's mailbox for good. */
  async one(id: string, event: EventLike<unknown>, data: unknown, options: SendOptions = {}): Promise<void> {
    const { sent, failed } = await this.many([id], event, data, options);
    if (failed[0]) throw failed[0].error;
    void sent;
  }

  /** One statement for all; a run that cannot take it does not keep it from the others. */
  async many(
    runIds: readonly string[],
    event: EventLike<unknown>,
    data: unknown,
    options: SendOptions = {},
  ): Promise<SentMany> {
    const definition = this.#parts.definitionOf(event);
    if (!definition)
      throw new PerdureError("PERDURE_OPTION", `send() needs an event made by event(), not ${shorten(event)}`);
    const what = `event "${definition.name}"`;
    const given = checkKeys(options, ["reference", "ignoreFinished"], `send() of ${what}`);
    const reference = given.reference === undefined ? null : checkName(given.reference, `reference of ${what}`);
    const ignoreFinished = checkBoolean(given.ignoreFinished ?? false, `ignoreFinished in send() of ${what}`);
    const ids = checkArray(runIds, `run ids in send() of ${what}`);
    for (const id of ids) checkName(id, "run id");
    const sent = data === undefined ? null : data;
    // Without a schema nothing is awaited: the data may look like a promise.
    const value = definition.schema ? await validate(definition.schema, sent, `data of ${what}`) : sent;
    const text = this.#parts.codec.encodePlain(value, `data of ${what}`);
    const rows = ids.map((id) => this.#row(id, definition.name, text, reference));
    const answers = await Promise.all(rows.map((row) => this.#write(row).catch(refused)));
    return sort(ids, answers, definition.name, ignoreFinished);
  }

  #write(row: SendRow): Promise<SendAnswer> {
    const written = this.#parts.flusher.write("send", row);
    this.#parts.onSent?.(row.id);
    return written;
  }

  /** The data is bound to each run by itself. */
  #row(id: string, name: string, text: string, reference: string | null): SendRow {
    const token = randomUUID();
    const data = this.#parts.codec.seal(text, `data of event "${name}"`, mailOf(id, name, token));
    return { id, name, data, reference, token };
  }
}

/** There was no room for this one any more; those before it are on their way. */
function refused(error: unknown): PerdureError {
  if (error instanceof PerdureError && error.code === "PERDURE_BUSY") return error;
  throw error;
}

function sort(
  ids: readonly string[],
  answers: readonly (SendAnswer | PerdureError)[],
  name: string,
  ignoreFinished: boolean,
): SentMany {
  const sent: string[] = [];
  const failed: SentMany["failed"] = [];
  answers.forEach((answer, at) => {
    const id = ids[at]!;
    const verdict = answer instanceof PerdureError ? null : answer.verdict;
    if (answer instanceof PerdureError) failed.push({ id, error: answer });
    else if (verdict === "unknown") {
      failed.push({
        id,
        error: new PerdureError(
          "PERDURE_NOT_FOUND",
          `event "${name}" was not sent: there is no run "${id}"; check the id, or start the run first`,
        ),
      });
    } else if (verdict === "finished" && !ignoreFinished) {
      failed.push({
        id,
        error: new RunFinishedError(
          id,
          `event "${name}" was not sent: run "${id}" has finished and takes no more events; pass ignoreFinished: true if that is fine`,
        ),
      });
    } else sent.push(id);
  });
  return { sent, failed };
}
