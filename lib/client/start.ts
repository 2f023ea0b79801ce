/** Starting runs. */
import { RunConflictError } from "../core/errors.ts";
import { checkInput } from "../core/schema.ts";
import type { StoredCodec } from "../core/stored.ts";
import type { StartOptions, WorkflowDefinition } from "../core/types.ts";
import { Birth, type Slots } from "../db/leased.ts";
import { type LeasableRow, madeBefore, toStartRow } from "../db/start-row.ts";
import type { Hearer, StartAnswer, StartRow, Writer } from "../db/writes.ts";

export interface StarterParts {
  readonly flusher: Writer;
  readonly codec: StoredCodec;
  readonly slots: Slots;
}

/** Makes a run; it is durable when the id is returned. */
export function startRun(
  definition: WorkflowDefinition,
  options: StartOptions,
  given: unknown[],
  parts: StarterParts,
): Promise<string> {
  if (definition.input) return checkInput(definition, given).then((args) => put(definition, options, args, parts));
  return put(definition, options, given, parts);
}

function put(
  definition: WorkflowDefinition,
  options: StartOptions,
  args: unknown[],
  parts: StarterParts,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const row = toStartRow(definition, options, args, parts.codec);
    parts.flusher.put("start", row, new Start(row, args, parts, resolve, reject));
  });
}

/** One start on its way. */
class Start extends Birth implements Hearer<"start"> {
  readonly #args: unknown[];
  readonly #parts: StarterParts;
  readonly #resolve: (id: string) => void;
  readonly #reject: (error: unknown) => void;

  constructor(
    row: LeasableRow,
    args: unknown[],
    parts: StarterParts,
    resolve: (id: string) => void,
    reject: (error: unknown) => void,
  ) {
    super(row, parts.slots);
    this.#args = args;
    this.#parts = parts;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  resolve(answer: StartAnswer): void {
    const { row } = this;
    if (answer.verdict !== "conflict") this.#resolve(row.id);
    else void this.#conflict(answer).then(this.#resolve, this.#reject);
    this.written(answer);
  }

  reject(error: unknown): void {
    this.#reject(error);
    this.onAside();
  }

  async #conflict(answer: StartAnswer): Promise<string> {
    const { row } = this;
    const before = madeBefore(answer, row, this.#args, this.#parts.codec);
    const last = before ? await this.#parts.flusher.write("start", before) : answer;
    if (last.verdict === "conflict") throw conflict(row, last);
    return row.id;
  }
}

function conflict(row: StartRow, answer: StartAnswer): RunConflictError {
  const why =
    answer.workflow === row.workflow ? "was started with other input" : `belongs to workflow "${answer.workflow}"`;
  const text = `cannot start workflow "${row.workflow}": run "${row.id}" is taken and ${why} (it is ${answer.state}). Choose another id, or say onConflict: "return_existing"`;
  return new RunConflictError(row.id, text);
}
