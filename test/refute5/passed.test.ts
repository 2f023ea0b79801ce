/** Two claims cross: what one has locked and does not take, the other takes, or knows that it is to look again. */
import type pg from "pg";
import { type Test, test } from "tap";
import { runBatch } from "../../lib/db/batch.ts";
import { connectSwift } from "../../lib/db/swift.ts";
import { claim } from "../../lib/db/swift-claim.ts";
import { workflow } from "../../lib/index.ts";
import { type Bench, bench } from "../support/engine.ts";

const LANES = { workflows: ["a", "b"], versions: ["1", "1"], queues: ["default", "default"] };
const [a, b] = [workflow("a", async () => {}), workflow("b", async () => {})];

/** A worker of nobody's, and what it is given when it asks for so many. */
async function claimant(t: Test, { url, schema }: Bench, worker: string) {
  const client: pg.Client = await connectSwift({ connectionString: url });
  t.teardown(() => client.end());
  const context = { schema, worker, lanes: LANES, named: true, again: false, lockMs: null, apart: false };
  const row = (count: number) => ({ limit: () => count, warmFrom: () => 0 });
  const asks = async (count: number): Promise<(string | null)[]> => {
    const told = { onAside: () => {}, resolve: () => {}, reject: () => {} };
    const item = { kind: "claim", row: row(count), lane: null, since: 0, told } as const;
    const [answer] = (await runBatch(client, [item], context, () => null)).answered;
    return (answer!.answer as { loaded: { id: string; key: string | null }[] }).loaded.map(({ id, key }) => key && id);
  };
  return { client, asks, statement: (count: number) => claim(client, row(count), context)! };
}

test("a claim of a few locks no more than it may take", async (t) => {
  const made = await bench(t, { workflows: [a, b], worker: false });
  for (const id of ["1", "2", "3"]) await made.perdure.start(a.with({ id }));
  const [one, other] = [await claimant(t, made, "7"), await claimant(t, made, "8")];
  await one.client.query("begin");
  const { rows } = await one.client.query(one.statement(1));
  t.match(rows, [{ usual: false }], "there are more than it may take: the function is to be asked");
  t.same(await other.asks(10), ["1", "2", "3"]);
  await one.client.query("rollback");
});

test("a claim that passes over what another has locked is to look again", async (t) => {
  const made = await bench(t, { workflows: [a, b], worker: false });
  await made.perdure.start(a.with({ id: "1" }));
  await made.perdure.start(b.with({ id: "2" }));
  const [one, other] = [await claimant(t, made, "7"), await claimant(t, made, "8")];
  await one.client.query("begin");
  const taken = await one.client.query(
    `select id, backlog from "${made.schema}".claim_runs(7, array['a', 'b'], array['1', '1'], array['default', 'default'], 1, 0)`,
  );
  t.same(taken.rows, [{ id: "1", backlog: true }], "one of two lanes, and both are locked");
  t.same(await other.asks(10), [null]);
  await other.client.query("set enable_seqscan = on"); // then by the function
  t.same(await other.asks(10), [null]);
  await one.client.query("commit");
  t.same(await other.asks(10), ["2"]);
  t.same(await other.asks(10), [], "nothing is left");
});
