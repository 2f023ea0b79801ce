/**
 * The limit: what Perdure writes for a run, written by bare `pg` in batches of 200 with the same fence, on two connections; and where
 * one thing is timed, one commit of one row, and one notification.
 */
import { setTimeout as pause } from "node:timers/promises";
import pg from "pg";
import { Bare, PLANNED } from "../../support/bare.ts";
import { type Adapter, type Client, KINDS, type Kind, type Teller } from "../adapter.ts";
import { perdure } from "./perdure.ts";

const BATCH = 200;
const CONNECTIONS = 2;
const CHANNEL = "bench";
const STEPS: Readonly<Partial<Record<Kind, number>>> = { "one-step": 1, "ten-steps": 10 };
const SINGLE = { name: "single", text: "insert into single (t) values ($1)", values: ["x"] };

async function open(connectionString: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString, options: PLANNED });
  client.on("error", () => {});
  await client.connect();
  return client;
}

async function prepare(url: string): Promise<void> {
  await perdure.prepare(url, "default");
  const client = await open(url);
  await client.query("create table single (n bigint generated always as identity primary key, t text)");
  await client.end();
}

/** Starts are Perdure's own: only what a worker does is compared. */
async function connect(url: string): Promise<Client> {
  const [client, sender] = [await perdure.connect(url), await open(url)];
  return {
    ...client,
    start: async (_kind, mark) =>
      void (await sender.query({ name: "notify", text: "select pg_notify($1, $2)", values: [CHANNEL, mark] })),
    close: async () => {
      await client.close();
      await sender.end();
    },
  };
}

/** Claims and writes until it is told to stop. */
async function drain(client: pg.Client, stopped: () => boolean, teller: Teller): Promise<void> {
  const bare = new Bare("perdure");
  while (!stopped()) {
    let found = 0;
    for (const kind of KINDS) found += await batch(bare, client, kind, teller);
    if (found === 0) await pause(10);
  }
}

async function batch(bare: Bare, client: pg.Client, kind: Kind, teller: Teller): Promise<number> {
  const steps = STEPS[kind];
  if (!steps) return 0;
  const keys = await bare.claimBatch(client, kind, BATCH);
  if (keys.length === 0) return 0;
  for (let at = 0; at < keys.length; at += 1) teller.begins();
  for (let no = 1; no < steps; no += 1) await bare.recordBatch(client, keys, no);
  await bare.finishBatch(client, keys, steps);
  for (let at = 0; at < keys.length; at += 1) teller.ends();
  return keys.length;
}

export const bare: Adapter = {
  can: ["steps", "results"],
  setups: {
    throughput: `Perdure's rows in batches of ${BATCH}, fenced, on ${CONNECTIONS} connections`,
    latency: "one single-row commit; one notification",
  },
  prepare,
  connect,
  work: async (url, setup, teller) => {
    const clients = await Promise.all(Array.from({ length: CONNECTIONS }, () => open(url)));
    let stopped = false;
    const drains = setup === "throughput" ? clients.map((client) => drain(client, () => stopped, teller)) : [];
    clients[0]!.on("notification", ({ payload }) => teller.tells(payload!));
    await clients[0]!.query(`listen ${CHANNEL}`);
    return {
      once: () => clients[1]!.query(SINGLE),
      stop: async () => {
        stopped = true;
        await Promise.all(drains);
        await Promise.all(clients.map((client) => client.end()));
      },
    };
  },
  left: perdure.left,
  kept: perdure.kept!,
};
