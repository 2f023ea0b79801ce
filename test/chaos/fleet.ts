/** The six workers, each behind a proxy of its own: launched, killed, frozen, exchanged. One that dies is replaced at once. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { createWriteStream, type WriteStream } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { FaultyProxy } from "../support/proxy.ts";
import { SCHEMA } from "./audit.ts";
import { FAKETIME } from "./size.ts";
import type { WorkerOptions } from "./worker.ts";

const WORKER = fileURLToPath(new URL("./worker.js", import.meta.url));
const RESTART_MS = 100;

/** How a worker's process is started. */
export interface Build {
  readonly version: number;
  /** For libfaketime: `+2h`. Null: the clock of the machine. */
  readonly clock: string | null;
}

export type WorkerState = "starting" | "up" | "frozen" | "down";

export class Worker {
  readonly no: number;
  readonly proxy: FaultyProxy;
  state: WorkerState = "down";
  build: Build = { version: 1, clock: null };
  /** Processes that it has had, and those that died without having been killed from here. */
  processes = 0;
  deaths = 0;
  process: ChildProcess | undefined;
  #stopping = false;
  readonly #ledger: () => string;
  readonly #leaseMs: number;
  readonly #log: WriteStream;
  #ended: Promise<unknown> = Promise.resolve();

  constructor(no: number, proxy: FaultyProxy, how: { ledger: () => string; leaseMs: number; logs: string }) {
    this.no = no;
    this.proxy = proxy;
    this.#ledger = how.ledger;
    this.#leaseMs = how.leaseMs;
    this.#log = createWriteStream(join(how.logs, `worker-${no}.log`));
  }

  /** As the engine names it. */
  get name(): string {
    return `${hostname()}:${this.process?.pid}`;
  }

  urlOf(kind: string): string {
    return `postgres://postgres@127.0.0.1:${this.proxy.port}/postgres?application_name=chaos-${this.no}${kind}`;
  }

  /** Resolves when the process exists; `up` comes later. */
  start(): void {
    const { version, clock } = this.build;
    const options: WorkerOptions = {
      url: this.urlOf(""),
      listenUrl: this.urlOf("-direct"),
      ledger: this.#ledger(),
      schema: SCHEMA,
      leaseMs: this.#leaseMs,
      version,
      // Some keep suspended runs in memory, others replay whatever wakes.
      warm: this.no % 3 === 0 ? 0 : 1000,
    };
    const skewed = clock === null ? {} : { LD_PRELOAD: FAKETIME, FAKETIME: clock, DONT_FAKE_MONOTONIC: "1" };
    const child = fork(WORKER, [JSON.stringify(options)], {
      stdio: ["ignore", "pipe", "pipe", "ipc"],
      execArgv: [],
      env: { ...process.env, NODE_OPTIONS: "", ...skewed },
    });
    child.stdout!.pipe(this.#log, { end: false });
    child.stderr!.pipe(this.#log, { end: false });
    this.processes += 1;
    this.process = child;
    this.state = "starting";
    child.once("message", () => {
      if (this.process === child && this.state === "starting") this.state = "up";
    });
    this.#ended = once(child, "exit").then(() => this.#died(child));
  }

  async #died(child: ChildProcess): Promise<void> {
    if (this.process !== child) return;
    if (this.state !== "down") this.deaths += 1;
    this.state = "down";
    await pause(RESTART_MS);
    if (!this.#stopping && this.process === child) this.start();
  }

  kill(): void {
    this.state = "down";
    this.process!.kill("SIGKILL");
  }

  freeze(): void {
    this.state = "frozen";
    this.process!.kill("SIGSTOP");
  }

  /** A worker that was killed while it was frozen stays what it is. */
  thaw(frozen: ChildProcess): void {
    if (this.process !== frozen || this.state !== "frozen") return;
    frozen.kill("SIGCONT");
    this.state = "up";
  }

  /** Shuts down in good order, and comes back as `build`. */
  async exchange(build: Build): Promise<void> {
    const child = this.process!;
    this.build = build;
    this.state = "down";
    child.send("leave", () => {});
    const gone = this.#ended;
    const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
    await gone;
    clearTimeout(timer);
  }

  /** For good. */
  async end(signal: "leave" | "SIGKILL"): Promise<void> {
    this.#stopping = true;
    const child = this.process;
    if (child && child.exitCode === null && child.signalCode === null) {
      this.state = "down";
      if (signal === "leave") child.send("leave", () => {});
      else child.kill("SIGKILL");
      const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
      await this.#ended;
      clearTimeout(timer);
    }
    await this.proxy.close();
    this.#log.end();
  }
}
