/** A replay that does nothing: a pass over ports that write nowhere, until it ends, rests, or wants to do something new. */
import type { Claim } from "../core/claim.ts";
import { PerdureError, TimeoutError } from "../core/errors.ts";
import { engineLog } from "../core/logging.ts";
import type { WorkflowDefinition } from "../core/types.ts";
import type { BlockRow, FinishRow, RecordRow, RetryRow, StartRow, WaitRow, WriteKind, Writes } from "../db/writes.ts";
import { Delays } from "../engine/delays.ts";
import { type ExecutePorts, executor } from "../engine/execute.ts";
import { Lasting } from "../engine/lasting.ts";
import type { Pass } from "../engine/pass.ts";
import { Turns } from "../engine/turns.ts";
import { TestClock } from "./clock.ts";

/** What a replay came to. */
export interface Rehearsed {
  readonly came: "completed" | "failed" | "waiting" | "onward" | "blocked";
  /** The slots of calls that are new. */
  readonly next: readonly string[];
  /** Why it is blocked. */
  readonly reason: string;
  /** The stored form of the result or the error, where it ended. */
  readonly value: string | null;
  /** Slots that are recorded and were not asked for. */
  readonly unasked: readonly string[];
}

/** What is the engine's, and not the run's. */
export type Given = Pick<ExecutePorts, "codec" | "makeContext">;

/** With something new to do, so long nothing more may come up until that is all. */
const QUIET_MS = 25;
/** A body that awaits what is not durable is waited for. */
const PATIENCE_MS = 5000;

export function rehearse(claim: Claim, definition: WorkflowDefinition, given: Given): Promise<Rehearsed> {
  return new Rehearsal(claim, definition, given).run();
}

const never = <T>(): Promise<T> => new Promise(() => {});
const silent = (): void => {};
const LOGGER = engineLog({ debug: silent, info: silent, warn: silent, error: silent });

class Rehearsal {
  readonly #claim: Claim;
  readonly #definition: WorkflowDefinition;
  readonly #given: Given;
  readonly #next: string[] = [];
  #pass: Pass | undefined;
  #quiet: NodeJS.Timeout | undefined;
  #settle!: (came: Rehearsed["came"], more?: { reason?: string; value?: string }) => void;

  constructor(claim: Claim, definition: WorkflowDefinition, given: Given) {
    this.#claim = claim;
    this.#definition = definition;
    this.#given = given;
  }

  async run(): Promise<Rehearsed> {
    let late: NodeJS.Timeout | undefined;
    const ended = new Promise<Rehearsed>((resolve, reject) => {
      this.#settle = (came, { reason = "", value } = {}) => {
        // An input that cannot be read ends the pass before it is returned.
        setImmediate(() => {
          const unasked = this.#pass!.history.unconsumed().map(({ slot }) => slot);
          resolve({ came, next: [...new Set(this.#next)], reason, value: value ?? null, unasked });
        });
      };
      late = setTimeout(() => {
        const { id, workflow } = this.#claim;
        const text = `replayHistory: run "${id}" of workflow "${workflow}" neither ends nor asks for anything: its code awaits something that is not durable; put that into a step`;
        reject(new TimeoutError(text));
      }, PATIENCE_MS);
    });
    this.#pass = executor(this.#ports())(this.#claim, this.#definition);
    try {
      return await ended;
    } finally {
      clearTimeout(late);
      clearTimeout(this.#quiet);
      this.#pass.lose("the replay is over");
    }
  }

  /** Something new: when no more of it comes up, that is what the code goes on with. */
  #isNew(slot: string): void {
    this.#next.push(slot);
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => this.#settle("onward"), QUIET_MS);
  }

  #ports(): ExecutePorts {
    const outside = (): Promise<never> => Promise.reject(new PerdureError("PERDURE_STATE", "a replay sends nothing"));
    return {
      ...this.#given,
      clock: new TestClock(this.#claim.now),
      logger: LOGGER,
      delays: new Delays(),
      turns: new Turns(),
      lasting: new Lasting(),
      strict: false,
      flusher: {
        put: (kind, row, told) =>
          void this.#write(kind, row).then(
            (answer) => told.resolve(answer),
            (error) => told.reject(error),
          ),
      },
      // A transaction that begins is new.
      transactor: { run: (work) => work(undefined as never).then(() => never()) },
      slots: { serves: () => false, reserve: () => false, adopt: silent, watch: silent },
      outside: { send: outside, cancel: outside },
      hooks: {
        replays: false,
        step: (definition) => ({ ...definition, fn: () => this.#begins(definition) }),
        waits: silent,
      },
      look: () => Promise.resolve(null),
      loadMore: () => Promise.resolve({ history: [], more: false }),
      onEnd: (_, ending) => {
        if (ending.how === "suspended") this.#rests();
      },
      onGone: silent,
      onDelayed: silent,
      onFollowed: silent,
      onStray: silent,
      onResumed: silent,
      warmNumber: () => null,
    };
  }

  #begins({ kind, name }: { kind: string; name: string }): Promise<never> {
    this.#isNew(`${kind} "${name}"`);
    return never();
  }

  #rests(): void {
    this.#settle(this.#next.length > 0 ? "onward" : "waiting");
  }

  /** What a write would be answered; what it means for the replay. */
  #write<K extends WriteKind>(kind: K, row: Writes[K]["row"]): Promise<Writes[K]["answer"]> {
    const answer = { verdict: "ok", due_ms: null, ended: false } as unknown as Writes[K]["answer"];
    switch (kind as WriteKind) {
      case "start":
        this.#isNew(`child "${(row as StartRow).id}"`);
        return never();
      case "record":
        this.#isNew((row as RecordRow).slot);
        break;
      case "publish":
        this.#isNew(`${(row as RecordRow).kind} "${(row as RecordRow).name}"`);
        break;
      case "wait":
        if (!this.#claim.waits.some(({ slot }) => slot === (row as WaitRow).slot)) this.#isNew((row as WaitRow).slot);
        break;
      case "finish":
        this.#settle((row as FinishRow).state, { value: (row as FinishRow).value });
        break;
      case "retry":
        this.#settle("failed", { value: (row as RetryRow).error });
        break;
      case "block":
        this.#settle("blocked", { reason: (row as BlockRow).reason });
        break;
    }
    return Promise.resolve(answer);
  }
}
