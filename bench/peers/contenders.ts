/** Who takes part: the libraries and the bare statements, each with the setups that it has. */
import type { Adapter, Setup } from "./adapter.ts";

const ADAPTERS: Readonly<Record<string, () => Promise<Adapter>>> = {
  perdure: async () => (await import("./adapters/perdure.ts")).perdure,
  dbos: async () => (await import("./adapters/dbos.ts")).dbos,
  openworkflow: async () => (await import("./adapters/openworkflow.ts")).openworkflow,
  absurd: async () => (await import("./adapters/absurd.ts")).absurd,
  "graphile-worker": async () => (await import("./adapters/graphile-worker.ts")).graphileWorker,
  "pg-boss": async () => (await import("./adapters/pg-boss.ts")).pgBoss,
  bare: async () => (await import("./adapters/bare.ts")).bare,
};

/** Their names, Perdure first: every ratio is to it. */
export const NAMES: readonly string[] = Object.keys(ADAPTERS);
/** These need a package that is installed for them. */
export const INSTALLED: readonly string[] = NAMES.filter((name) => name !== "perdure" && name !== "bare");

export const loadAdapter = (name: string): Promise<Adapter> => ADAPTERS[name]!();

/** One line of a table: a library in one setup. */
export interface Contender {
  readonly name: string;
  readonly setup: Setup;
  readonly adapter: Adapter;
}

export const titleOf = ({ name, setup }: Contender): string =>
  setup === "default" ? name : `${name}, ${WORDS[setup]}`;

const WORDS: Readonly<Record<Setup, string>> = {
  default: "default",
  throughput: "for throughput",
  latency: "for latency",
  recovery: "for recovery",
  waiting: "for waiting",
};
