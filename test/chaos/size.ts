/** How much happens in a chaos run: what `npm test` takes, what `npm run chaos` takes, and what a command line asks for. */
import { existsSync } from "node:fs";

/** What the nemesis does, and how often. */
export const FAULTS = {
  kill: "kill -9 of a worker",
  freeze: "SIGSTOP of a worker, SIGCONT later",
  crash: "immediate stop and start of Postgres",
  failover: "the standby is promoted, the other rebuilt",
  listener: "the backend that listens for a worker is terminated",
  certificate: "the backend that holds a worker's session lock is terminated",
  backends: "all backends of a worker are terminated",
  backend: "kill -9 of one backend, which restarts them all",
  reset: "the connections of a process are reset",
  lost: "the answer to a commit is lost",
  silent: "the connections of a process stay open and carry nothing",
  stall: "the connections of a process stand still for 3 s",
  slow: "the connections of a process are 50 ms late for a while",
  clock: "a worker is restarted with a clock two hours off",
  snapshot: "a REPEATABLE READ snapshot is held",
  deploy: "workers are exchanged one by one for those of another version",
} as const;
export type Fault = keyof typeof FAULTS;

export interface Size {
  readonly seed: number;
  readonly runs: number;
  /** Over so many seconds runs are started and faults happen. */
  readonly seconds: number;
  readonly workers: number;
  /** So many of them are exchanged by a deploy. */
  readonly deployed: number;
  readonly leaseMs: number;
  readonly freezeMs: readonly [least: number, most: number];
  readonly snapshotMs: number;
  /** Runs that kill their process in a step, each time. */
  readonly poison: number;
  readonly faults: Readonly<Record<Fault, number>>;
  /** Within so long after the last fault every run is to end. */
  readonly patienceMs: number;
  /** Whether it fails when it was too gentle. */
  readonly rough: boolean;
}

/** Where Debian has it; without it no clock is set off. */
export const FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const clocks = (many: number): number => (existsSync(FAKETIME) ? many : 0);

export const SMALL: Omit<Size, "seed"> = {
  runs: 500,
  seconds: 30,
  workers: 6,
  deployed: 3,
  leaseMs: 2000,
  freezeMs: [1500, 5000],
  snapshotMs: 5000,
  poison: 1,
  patienceMs: 60_000,
  rough: true,
  faults: {
    kill: 20,
    freeze: 10,
    crash: 2,
    failover: 0,
    listener: 5,
    certificate: 2,
    backends: 2,
    backend: 1,
    reset: 4,
    lost: 6,
    silent: 2,
    stall: 1,
    slow: 1,
    clock: clocks(2),
    snapshot: 1,
    deploy: 2,
  },
};

export const FULL: Omit<Size, "seed"> = {
  ...SMALL,
  runs: 10_000,
  deployed: 6,
  seconds: 660,
  leaseMs: 5000,
  freezeMs: [2000, 15_000],
  snapshotMs: 20_000,
  poison: 4,
  faults: {
    kill: 200,
    freeze: 150,
    crash: 20,
    failover: 3,
    listener: 100,
    certificate: 10,
    backends: 35,
    backend: 20,
    reset: 50,
    lost: 60,
    silent: 30,
    stall: 30,
    slow: 20,
    clock: clocks(20),
    snapshot: 6,
    deploy: 2,
  },
};

/** A size times so much: of each fault at least one where there was one. The lease stays, and so does the time that a freeze takes. */
export function scaled(size: Omit<Size, "seed">, by: number): Omit<Size, "seed"> {
  const times = (many: number): number => (many === 0 ? 0 : Math.max(1, Math.round(many * by)));
  return {
    ...size,
    runs: times(size.runs),
    seconds: Math.max(15, Math.round(size.seconds * by)),
    poison: times(size.poison),
    faults: Object.fromEntries(
      Object.entries(size.faults).map(([fault, many]) => [fault, fault === "deploy" ? many : times(many)]),
    ) as Size["faults"],
  };
}
