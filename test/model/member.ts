/** A worker process of the model: one engine at a time, on the schema that it is told. */
import { setTimeout as pause } from "node:timers/promises";
import pg from "pg";
import { currentRun, currentStep, Perdure, schedule, transaction, workflow } from "../../lib/index.ts";
import { type Outside, scripted } from "./play.ts";
import type { Version } from "./script.ts";

export interface Launch {
  readonly schema: string;
  readonly versions: readonly Version[];
  readonly notify: boolean;
  readonly warm: boolean;
}

const { url } = JSON.parse(process.argv[2]!) as { url: string };
// Beside the engine's own connections, and through every outage: what a step has begun to do outside, it does.
const pool = new pg.Pool({ connectionString: url, max: 4, idleTimeoutMillis: 500 });
pool.on("error", () => {});
const LOOK_MS = 8;
let perdure: Perdure | undefined;
const logged: string[] = [];

async function persist<T>(text: string, values: unknown[], signal?: AbortSignal): Promise<T[]> {
  for (;;) {
    signal?.throwIfAborted();
    try {
      return (await pool.query(text, values)).rows;
    } catch {
      await pause(LOOK_MS * 3);
    }
  }
}

const outsideOf = (schema: string): Outside => ({
  book: async (run, at) => {
    await currentStep().tx!.query(`insert into "${schema}".ledger (run, at) values ($1, $2)`, [run, at]);
  },
  enter: async (run, at) => {
    await persist(`insert into "${schema}".journal (run, at) values ($1, $2)`, [run, at]);
  },
  opened: async (family, signal) => {
    while ((await persist(`select from "${schema}".gate where family = $1`, [family], signal)).length === 0)
      await pause(LOOK_MS);
  },
});

const log = (message: string, error?: unknown): void =>
  void logged.push(error === undefined ? message : `${message}: ${error}`);

function engineOf({ schema, versions, notify, warm }: Launch): Perdure {
  const outside = outsideOf(schema);
  const tick = transaction("tick", () => outside.book(currentRun().id, "tick"));
  const ticked = workflow("ticked", () => tick());
  return new Perdure({
    database: url,
    schema,
    lease: "4s",
    notify,
    worker: warm ? {} : { warm: 0 },
    logger: { debug: log, info: log, warn: log, error: log },
    workflows: [...versions.map((version) => scripted(version, outside)), ticked],
    schedules: [schedule("tick", { every: { hours: 5 }, overlap: "allow" }, ticked)],
  });
}

const orders: Record<string, (given: any) => unknown> = {
  /** As an application does that its host starts again: until the server is there. */
  launch: async (given: Launch) => {
    for (;;) {
      perdure = engineOf(given);
      try {
        return await perdure.launch();
      } catch (error) {
        await perdure.shutdown();
        if ((error as { code?: string }).code !== "PERDURE_CONNECTION") throw error;
        await pause(LOOK_MS * 3);
      }
    }
  },
  shutdown: async (timeout: number) => {
    await perdure?.shutdown({ timeout });
    perdure = undefined;
  },
  log: () => logged,
};

interface Order {
  readonly no: number;
  readonly what: string;
  readonly args: unknown[];
}

async function carryOut({ no, what, args }: Order): Promise<void> {
  try {
    const value = await orders[what]!(args[0]);
    process.send?.({ no, value });
  } catch (error) {
    process.send?.({ no, error: String(error) });
  }
}

process.on("message", (order: Order) => void carryOut(order));
// Who has nobody to play for leaves, whatever it was at.
process.on("disconnect", () => process.exit());
process.send?.({ ready: true }, undefined, undefined, () => {});
