/** A contender's worker process, seen from the process that measures. */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Told, Usage } from "./teller.ts";

const FILE = fileURLToPath(new URL("worker-process.js", import.meta.url));
const PATIENCE_MS = 60_000;

export interface WorkerOptions {
  /** It may collect its garbage when asked what it uses. */
  readonly gc?: boolean;
  /** Its `held` workflow hangs, for the process is meant to be killed. */
  readonly holds?: boolean;
}

type What = "tells" | "waits" | "sleeps" | "holds";

export class WorkerProcess {
  /** When its first body began, and how many have ended. */
  began: number = Number.POSITIVE_INFINITY;
  ended: number = 0;
  readonly #child: ChildProcess;
  readonly #reached = new Map<string, unknown>();
  readonly #waiting = new Map<string, { resolve: (value: any) => void; reject: (error: Error) => void }>();
  readonly #title: string;
  #gone: Error | undefined;

  /** A process that has loaded its packages, and waits. */
  static async start(args: readonly [string, string, string], options: WorkerOptions = {}): Promise<WorkerProcess> {
    const child = fork(FILE, args, {
      execArgv: ["--no-deprecation", ...(options.gc ? ["--expose-gc"] : [])],
      env: { ...process.env, NODE_ENV: "production", ...(options.holds ? { BENCH_HOLDS: "1" } : {}) },
      stdio: ["ignore", "ignore", "inherit", "ipc"],
    });
    const worker = new WorkerProcess(child, args[0]);
    await worker.#wait("loaded", PATIENCE_MS);
    return worker;
  }

  private constructor(child: ChildProcess, title: string) {
    this.#child = child;
    this.#title = title;
    child.on("message", (told: Told) => this.#hear(told));
    child.on("exit", (code, signal) => this.#end(new Error(`the worker of ${title} ended with ${signal ?? code}`)));
  }

  #hear(told: Told): void {
    if ("loaded" in told) this.#settle("loaded", true);
    else if ("ended" in told) [this.began, this.ended] = [told.began, told.ended];
    else if ("mark" in told) this.#settle(`${told.what} ${told.mark}`, told.at);
    else this.#settle("answer", told.answer);
  }

  #settle(key: string, value: unknown): void {
    const waiting = this.#waiting.get(key);
    this.#waiting.delete(key);
    if (waiting) waiting.resolve(value);
    else this.#reached.set(key, value);
  }

  #end(error: Error): void {
    this.#gone = error;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }

  #wait<T>(key: string, patience: number): Promise<T> {
    const reached = this.#reached.get(key);
    this.#reached.delete(key);
    if (reached !== undefined) return Promise.resolve(reached as T);
    if (this.#gone) return Promise.reject(this.#gone);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(key);
        reject(new Error(`the worker of ${this.#title} did not say "${key}" within ${patience / 1000} s`));
      }, patience);
      const done =
        <T>(settle: (value: T) => void) =>
        (value: T) => {
          clearTimeout(timer);
          settle(value);
        };
      this.#waiting.set(key, { resolve: done(resolve), reject: done(reject) });
    });
  }

  /** Lets it work. */
  async go(): Promise<void> {
    await this.#ask("go");
  }

  /** Throws when it has ended. */
  check(): void {
    if (this.#gone) throw this.#gone;
  }

  /** When the body with this mark came to that point; rejects when it does not within so many milliseconds. */
  reached(what: What, mark: string, patience: number = PATIENCE_MS): Promise<number> {
    return this.#wait(`${what} ${mark}`, patience);
  }

  async #ask<T>(question: string): Promise<T> {
    if (!this.#gone) this.#child.send(question);
    const answer = await this.#wait<T | { readonly error: string }>("answer", PATIENCE_MS);
    if (typeof answer === "object" && answer !== null && "error" in answer) throw new Error(answer.error);
    return answer as T;
  }

  usage(): Promise<Usage> {
    return this.#ask("usage");
  }

  /** How long it took to start a one-step workflow there and have its result, in ms. */
  async once(): Promise<number> {
    return (await this.#ask<{ ms: number }>("once")).ms;
  }

  /** Lets it stop as its library does, and kills it when that takes long. */
  async stop(): Promise<void> {
    if (this.#gone) return;
    const gone = new Promise<void>((resolve) => this.#child.once("exit", () => resolve()));
    this.#child.send("stop");
    const timer = setTimeout(() => this.kill(), 10_000);
    await gone;
    clearTimeout(timer);
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }
}
