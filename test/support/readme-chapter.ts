/** What a chapter of the README takes for granted: a launched engine that has the workflows shown, and a connection for its SQL. */
import { deepStrictEqual } from "node:assert/strict";
import * as library from "../../lib/index.ts";
import { inDatabase } from "./postgres.ts";

const made: library.Workflow<any, any>[] = [];
const engines: library.Perdure[] = [];
let latest: Promise<unknown> = Promise.resolve();
let served = 0;
let assertions = 0;

/** As the library's, and the workflow is registered in the chapter's engine; an instance is registered by the chapter itself. */
export const workflow = ((...given: Parameters<typeof define>) => {
  const one = define(...given);
  if (given.length > 1) made.push(one);
  return one;
}) as typeof library.workflow;
const define = library.workflow as (...given: unknown[]) => library.Workflow<any, any>;

/** The engine on DATABASE_URL, launched when it is first asked for something. */
export const perdure: library.Perdure = new Proxy({} as library.Perdure, {
  get: (_, method: "start" | "send" | "get" | "using") => {
    if (method === "using") return using;
    if (method === "get") return (...args: [string]) => engines.at(-1)!.get(...args);
    return async (...args: unknown[]) =>
      ((await engine())[method] as (...all: unknown[]) => unknown).call(engines.at(-1), ...args);
  },
});

function using(client: library.CallerClient): library.CallerTransaction {
  const get =
    (_: object, verb: "start" | "send" | "cancel") =>
    async (...args: never[]) =>
      ((await engine()).using(client)[verb] as (...all: unknown[]) => unknown)(...args);
  return new Proxy({}, { get } as ProxyHandler<object>) as library.CallerTransaction;
}

/** Calls that come side by side share one launch. */
function engine(): Promise<library.Perdure> {
  const turn = latest.then(launched, launched);
  latest = turn;
  return turn;
}

async function launched(): Promise<library.Perdure> {
  if (served === made.length && engines.length > 0) return engines.at(-1)!;
  // Workflows called like functions need the one engine that registers them.
  await Promise.all(engines.splice(0).map((old) => old.shutdown()));
  served = made.length;
  const one = new library.Perdure({ workflows: made });
  engines.push(one);
  await one.launch();
  return one;
}

/** Runs the statements of an `sql` block. */
export async function sql(text: string): Promise<void> {
  await inDatabase(process.env.DATABASE_URL!, (client) => client.query(text));
}

export function equal(actual: unknown, expected: unknown): void {
  deepStrictEqual(actual, expected);
  assertions += 1;
}

/** Runs a chapter's program. Returns how many assertions held. */
export async function runChapter(program: string, database: string): Promise<number> {
  process.env.DATABASE_URL = database;
  made.length = 0;
  served = 0;
  assertions = 0;
  try {
    // A chapter may have SQL and no engine.
    await new library.Perdure().migrate();
    await import(program);
    return assertions;
  } finally {
    await Promise.all(engines.splice(0).map((one) => one.shutdown()));
  }
}
