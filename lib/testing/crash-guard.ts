/** Kills a process at one of its writes: before it is committed, or after. */
import type { Logger } from "../core/types.ts";
import type { Guard, Written } from "../db/guard.ts";
import type { FinishRow, PublishRow, RecordRow, StartRow, TryRow, WaitRow, WriteKind } from "../db/writes.ts";
import { currentStep } from "../define/current.ts";
import type { CrashPoint } from "./crash.ts";
import type { StandIns } from "./stand-ins.ts";

type At = Pick<CrashPoint, "write" | "side">;

/** What is not a run's own write: these come as they come. */
const OTHERS: readonly WriteKind[] = ["handBack", "tell", "send", "due", "claim"];

export class CrashGuard {
  /** The writes, as they came. */
  readonly seen: string[] = [];
  /** Steps whose functions were called although their outcome was recorded. */
  readonly twice: string[] = [];
  /** Where it happened; null: it did not. */
  hit: CrashPoint | null = null;
  /** What follows the death. */
  onKill: () => Promise<void> = () => Promise.resolve();
  /** Resolves when that is done. */
  over: Promise<void> = Promise.resolve();
  readonly #at: At | null;
  readonly #recorded = new Set<string>();

  constructor(at: At | null, standIns: StandIns) {
    this.#at = at;
    standIns.onCall = ({ run, claim }) => {
      const { name, idempotencyKey } = currentStep();
      const key = `${claim.key} ${idempotencyKey.slice(run.id.length + 1)}`;
      if (this.#recorded.has(key)) this.twice.push(`step "${name}" of run "${run.id}"`);
    };
  }

  readonly guard: Guard = async (writes, commit) => {
    if (this.hit) throw new Killed();
    const own = writes.filter(({ kind }) => !OTHERS.includes(kind));
    if (own.length === 0) return commit();
    this.seen.push(own.map(describe).join(" and "));
    const kill = this.#at?.write === this.seen.length ? this.#at : null;
    if (kill?.side === "before") this.#kill(kill);
    const answer = await commit();
    for (const { kind, row } of own) if (kind === "record") this.#recorded.add(keyOf(row as RecordRow));
    // It may have been killed meanwhile, at another of its writes.
    if (kill || this.hit) this.#kill(kill);
    return answer;
  };

  #kill(at: At | null): never {
    if (at && !this.hit) {
      this.hit = { ...at, what: this.seen[at.write - 1]! };
      this.over = this.onKill();
      // It is awaited at the end of the go.
      this.over.catch(() => {});
    }
    throw new Killed();
  }

  /** A logger of the same shape that says no more once the process is dead; by default the one of an engine. */
  until(logger: Logger = QUIET): Logger {
    return new Proxy(logger, {
      get: (target, key) => {
        const found: unknown = Reflect.get(target, key);
        if (typeof found !== "function") return found;
        return (...line: unknown[]): unknown => (this.hit ? undefined : Reflect.apply(found, target, line));
      },
    });
  }
}

const QUIET: Logger = {
  debug: () => {},
  info: () => {},
  warn: (message, ...details) => console.warn(message, ...details),
  error: (message, ...details) => console.error(message, ...details),
};

class Killed extends Error {
  constructor() {
    super("this process was killed by crashEverywhere()");
  }
}

const keyOf = ({ run, slot, attempt }: RecordRow): string => `${run} ${slot}${attempt > 1 ? `/${attempt}` : ""}`;

/** A write in a reader's words. */
function describe({ kind, row }: Written): string {
  switch (kind) {
    case "start":
      return `the start of child "${(row as StartRow).id}"`;
    case "record": {
      const { kind: of, name, slot } = row as RecordRow;
      return `the outcome of ${of}${name ? ` "${name}"` : ""} (${slot})`;
    }
    case "deliver":
      return `the place of ${(row as RecordRow).slot} in the order`;
    case "wait":
      return `the wait ${(row as WaitRow).slot}`;
    case "try":
      return `try ${(row as TryRow).try} of step "${(row as TryRow).name}"`;
    case "publish":
      return `what is published to ${(row as PublishRow).kind} "${(row as PublishRow).name}"`;
    case "suspend":
      return "the suspension of the run";
    case "retry":
      return "the next attempt of the workflow";
    case "finish":
      return `the end of the run (${(row as FinishRow).state})`;
    default:
      return `the write "${kind}"`;
  }
}
