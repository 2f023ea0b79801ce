/** Strict mode: a body that waits, with nothing durable outstanding, keeps its claim for as long, and what it waits for is lost in a crash. */
import { firstPlace, isBundled, type Stack, stackBelow } from "../core/place.ts";
import type { Entry } from "./call.ts";
import type { Calls } from "./calls.ts";
import type { Pass } from "./pass.ts";

const PATIENCE_MS = 250;
const FRAMES = 30;
/** What was told of: once for each place. */
const told = new Set<string>();

export class Stall {
  readonly #pass: Pass;
  readonly #calls: Calls;
  #timer: NodeJS.Timeout | undefined;
  #last: { readonly entry: Entry; readonly stack: Stack } | null = null;

  constructor(pass: Pass, calls: Calls) {
    this.#pass = pass;
    this.#calls = calls;
  }

  /** The body begins, or makes a durable call. */
  called(entry?: Entry): void {
    clearTimeout(this.#timer);
    this.#last = entry ? { entry, stack: isBundled ? {} : stackBelow(this.called, FRAMES) } : null;
  }

  /** Nothing moves by itself any more. */
  rests(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#tell(), PATIENCE_MS).unref();
  }

  #tell(): void {
    const { run, body, over } = this.#pass;
    if (over || this.#calls.outstanding) return;
    const { entry, stack } = this.#last ?? {};
    const at = stack ? firstPlace(stack) : null;
    const where = entry
      ? `after ${entry.kind} "${entry.name}"${at ? `, called at ${at}` : ""}`
      : "before its first call";
    const key = `${run.workflow} ${where}`;
    if (told.has(key)) return;
    told.add(key);
    body.warn?.(
      `run "${run.id}" of workflow "${run.workflow}" waits for something that is not durable, ${where}: it holds its claim meanwhile, and replay waits for it again. Wrap what it awaits in a step: runStep("name", () => …)`,
    );
  }
}
