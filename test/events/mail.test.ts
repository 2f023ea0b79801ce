/** Events: mail in a run's box, kept before anyone waits, consumed once and in order, from TypeScript. */
import { test } from "tap";
import { event, type Received, type Schema, step, workflow } from "../../lib/index.ts";
import { type Bench, coldBench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { gate, PATIENCE_MS, reaches, rejection } from "../support/gate.ts";

const ping = event<number>("ping");
const pong = event<number>("pong");

/** What is in the mailboxes of a schema. */
const mailIn = ({ sql }: Bench) => sql("select run_id as run, name, reference from :SCHEMA.events order by id");

test("mail that came before the wait is delivered at once, with who, when and what", async (t) => {
  const before = gate();
  const hold = step("hold", () => before.opened);
  const listen = workflow("listen", async () => {
    await hold();
    return ping.wait();
  });
  const b = await coldBench(t, { workflows: [listen] });
  const run = await b.perdure.start(listen);
  await run.send(ping, 7, { reference: "first" });
  before.open();
  const got = await run.result();
  const [stored] = await b.sql("select id::text, sent_at, consumed_by from :SCHEMA.events");
  t.equal(got.data, 7);
  t.equal(got.reference, "first");
  t.equal(got.id, stored.id);
  t.equal(got.sentAt.getTime(), stored.sent_at.getTime());
  t.equal(stored.consumed_by, "event:ping#0", "and is marked as consumed");
  t.same(await b.sql("select * from :SCHEMA.wait"), [], "a wait that need not wait is not written");
});

test("mail that comes while the run waits wakes it", async (t) => {
  const listen = workflow("listen", async () => (await ping.wait()).data);
  const { perdure } = await coldBench(t, { workflows: [listen] });
  const run = await perdure.start(listen);
  await reaches(run, "suspended");
  t.equal((await run.status()).waitingFor, "event");
  await perdure.send(run.id, ping, 8);
  t.equal(await run.result(), 8);
});

test("each name is a queue of its own, first in, first out, before the wait and during it", async (t) => {
  const listen = workflow("listen", async () => {
    const got: number[] = [];
    for (const from of [ping, pong, ping, ping, pong, ping]) got.push((await from.wait()).data);
    return got;
  });
  const { perdure } = await coldBench(t, { workflows: [listen] });
  const run = await perdure.start(listen.with({ delay: "1h" }));
  for (const n of [1, 2, 3]) await run.send(ping, n);
  for (const n of [10, 20]) await run.send(pong, n);
  await run.send(ping, 4);
  const early = perdure.get(listen, run.id);
  const whole = perdure.start(listen);
  for (const n of [1, 2, 3, 4]) await (await whole).send(ping, n);
  for (const n of [10, 20]) await (await whole).send(pong, n);
  t.same(await (await whole).result(), [1, 10, 2, 3, 20, 4], "sent while it runs and waits");
  t.equal((await early.status()).state, "pending");
});

test("a run with more unread mail than one look brings still finds the name that it waits for", async (t) => {
  const listen = workflow("listen", async () => (await pong.wait()).data);
  const { perdure } = await coldBench(t, { workflows: [listen] });
  const run = await perdure.start(listen);
  await reaches(run, "suspended");
  await Promise.all(Array.from({ length: 2100 }, (_, n) => run.send(ping, n)));
  await run.send(pong, 5);
  t.equal(await run.result({ timeout: PATIENCE_MS }), 5);
});

test("waits side by side go on when all have come, in whichever order they come", async (t) => {
  const both = workflow("both", async () => {
    const [a, b] = await Promise.all([ping.wait(), pong.wait({ timeout: "1h" })]);
    return [a.data, b?.data];
  });
  const b = await coldBench(t, { workflows: [both] });
  for (const order of [
    [ping, pong],
    [pong, ping],
  ]) {
    const run = await b.perdure.start(both);
    await reaches(run, "suspended");
    t.equal((await run.status()).waitingFor, "several");
    await run.send(order[0]!, order[0] === ping ? 1 : 2);
    await eventually(async () => {
      const rows = await b.sql("select name from :SCHEMA.steps where run_id = $1 and outcome = 'completed'", [run.id]);
      return rows.length === 1 && (await run.status()).state === "suspended";
    }, PATIENCE_MS);
    t.equal((await run.status()).waitingFor, "event", "the first is taken, the run waits for the other");
    await run.send(order[1]!, order[1] === ping ? 1 : 2);
    t.same(await run.result(), [1, 2]);
  }
});

test("many waits for one name side by side each take one event, in the order of the calls", async (t) => {
  const many = workflow("many", async () => {
    const got = await Promise.all(Array.from({ length: 20 }, () => ping.wait()));
    return got.map(({ data }) => data);
  });
  const { perdure } = await coldBench(t, { workflows: [many] });
  const numbers = Array.from({ length: 20 }, (_, n) => n);
  const run = await perdure.start(many);
  await reaches(run, "suspended");
  await Promise.all(numbers.map((n) => run.send(ping, n)));
  t.same(await run.result(), numbers);
});

test("a step goes on beside a wait, and runs once", async (t) => {
  const calls: string[] = [];
  const work = step("work", async () => calls.push("work"));
  const both = workflow("both", async () => {
    const [got, count] = await Promise.all([ping.wait(), work()]);
    return [got.data, count];
  });
  const { perdure } = await coldBench(t, { workflows: [both] });
  const run = await perdure.start(both);
  await reaches(run, "suspended");
  await run.send(ping, 3);
  t.same(await run.result(), [3, 1]);
  t.same(calls, ["work"]);
});

test("a timeout is recorded: a late event does not change it, and feeds the next wait", async (t) => {
  const seen: (number | null)[][] = [];
  const patient = workflow("patient", async () => {
    const first = await ping.wait({ timeout: "10m" });
    const second = await ping.wait({ timeout: "10m" });
    await pong.wait();
    seen.push([first?.data ?? null, second?.data ?? null]);
    return seen.at(-1)!;
  });
  const b = await coldBench(t, { workflows: [patient] });
  const run = await b.perdure.start(patient);
  await reaches(run, "suspended");
  await b.advance(10 * 60_000);
  await eventually(async () => (await b.sql("select from :SCHEMA.steps where outcome = 'timeout'")).length === 1);
  await run.send(ping, 1);
  await eventually(async () => (await b.sql("select from :SCHEMA.steps where outcome = 'completed'")).length === 1);
  await reaches(run, "suspended");
  await run.send(pong, 0);
  t.same(await run.result(), [null, 1], "the same on replay");
  t.same(seen, [[null, 1]]);
});

test("the deadline of a wait survives a restart: it is not armed anew", async (t) => {
  const patient = workflow("patient", async () => ping.wait({ timeout: "1h" }));
  const b = await coldBench(t, { workflows: [patient] });
  const run = await b.perdure.start(patient);
  await reaches(run, "suspended");
  const due = () => b.sql("select due from :SCHEMA.wait");
  const armed = await due();
  await b.perdure.shutdown();
  const second = await b.another();
  // Mail of another name, and a claim handed back: both make it replay.
  await second.send(run.id, pong, 1);
  await b.sql("update :SCHEMA.run set state = 'pending', ready_at = now(), due = null, topics = null");
  await b.sql("select :SCHEMA.hint('w')");
  const again = second.get(patient, run.id);
  await eventually(async () => (await b.sql("select from :SCHEMA.run where epoch = 2 and state = 'suspended'")).length);
  t.same(await due(), armed);
  await b.advance(3_600_000);
  t.equal(await again.result(), null);
});

test("what was consumed before a crash is what replay returns, and the next wait gets the next event", async (t) => {
  const seen: number[][] = [];
  const listen = workflow("listen", async () => {
    const got = [(await ping.wait()).data, (await ping.wait()).data];
    await pong.wait();
    got.push((await ping.wait()).data);
    seen.push(got);
    return got;
  });
  const b = await coldBench(t, { workflows: [listen] });
  const run = await b.perdure.start(listen);
  for (const n of [1, 2, 3]) await run.send(ping, n);
  await reaches(run, "suspended");
  await b.perdure.shutdown();
  const second = await b.another();
  await second.send(run.id, pong, 0);
  t.same(await second.get(listen, run.id).result(), [1, 2, 3]);
  t.same(await b.sql("select count(*)::int as n, count(distinct consumed_by)::int as slots from :SCHEMA.events"), [
    { n: 4, slots: 4 },
  ]);
});

test("a chain of waits with long timeouts survives a restart between each", async (t) => {
  const approval = event<string>("approval");
  const chain = workflow("chain", async () => {
    const names: string[] = [];
    for (let n = 0; n < 4; n += 1) names.push((await approval.wait({ timeout: { days: 7 } }))?.data ?? "nobody");
    return names;
  });
  const b = await coldBench(t, { workflows: [chain] });
  const { id } = await b.perdure.start(chain);
  let engine = b.perdure;
  for (const [n, name] of ["ada", "bob", "cyd"].entries()) {
    await eventually(async () => {
      const [row] = await b.sql("select state, (select count(*)::int from :SCHEMA.checkpoint) as n from :SCHEMA.run");
      return row.state === "suspended" && row.n === n;
    }, PATIENCE_MS);
    await engine.shutdown();
    engine = await b.another();
    await engine.send(id, approval, name);
  }
  await reaches(engine.get(id), "suspended");
  await b.advance(7 * 86_400_000);
  t.same(await engine.get(chain, id).result(), ["ada", "bob", "cyd", "nobody"]);
});

test("a second event with the same reference is dropped, per run and per name", async (t) => {
  const collect = workflow("collect", async () => {
    const a = await ping.wait();
    const b = await ping.wait({ timeout: "1h" });
    const c = await pong.wait();
    return [a, b, c].map((got: Received<number> | null) => got && [got.data, got.reference]);
  });
  const b = await coldBench(t, { workflows: [collect] });
  const one = await b.perdure.start(collect.with({ id: "one" }));
  const two = await b.perdure.start(collect.with({ id: "two" }));
  await reaches(one, "suspended");
  await one.send(ping, 1, { reference: "key" });
  await one.send(ping, 2, { reference: "key" });
  await one.send(pong, 3, { reference: "key" });
  await two.send(ping, 4, { reference: "key" });
  t.strictSame(await mailIn(b), [
    { run: "one", name: "ping", reference: "key" },
    { run: "one", name: "pong", reference: "key" },
    { run: "two", name: "ping", reference: "key" },
  ]);
  await eventually(
    async () =>
      (
        await b.sql(
          "select from :SCHEMA.steps where slot = 'event:ping#0' and run_id = 'one' and outcome = 'completed'",
        )
      ).length,
  );
  await one.send(ping, 5, { reference: "key" });
  t.equal((await mailIn(b)).length, 3, "also once the first is consumed");
  await reaches(one, "suspended");
  await b.advance(3_600_000);
  t.same(await one.result(), [[1, "key"], null, [3, "key"]], "the first payload stands");
  await Promise.all(Array.from({ length: 20 }, (_, n) => two.send(ping, n, { reference: "same" })));
  t.equal((await mailIn(b)).filter(({ reference }) => reference === "same").length, 1, "at the same moment too");
});

test("an event to an unknown or a finished run is refused, or dropped when that is asked for", async (t) => {
  const quick = workflow("quick", async () => "done");
  const b = await coldBench(t, { workflows: [quick] });
  const run = await b.perdure.start(quick.with({ id: "quick-1" }));
  await run.result();
  const unknown = await rejection(b.perdure.send("nobody", ping, 1));
  t.match(unknown, { name: "PerdureError", code: "PERDURE_NOT_FOUND", message: /there is no run "nobody"/ });
  const finished = await rejection(run.send(ping, 1));
  t.match(finished, { name: "RunFinishedError", code: "PERDURE_FINISHED", message: /run "quick-1" has finished/ });
  t.equal(finished.error.runId, "quick-1");
  await run.send(ping, 1, { ignoreFinished: true });
  t.equal((await rejection(b.perdure.send("nobody", ping, 1, { ignoreFinished: true }))).code, "PERDURE_NOT_FOUND");
  const cancelled = await b.perdure.start(quick.with({ delay: "1h" }));
  await cancelled.cancel();
  t.equal((await rejection(cancelled.send(ping, 1))).code, "PERDURE_FINISHED");
  t.same(await mailIn(b), [], "nothing is stored");
});

test("one call sends to a thousand runs, and says which it could not reach", async (t) => {
  const listen = workflow("listen", async () => (await ping.wait()).data);
  const b = await coldBench(t, { workflows: [listen], worker: false });
  const ids = Array.from({ length: 1000 }, (_, n) => `r${n}`);
  const known = ids.filter((_, n) => n % 400 !== 7);
  await Promise.all(known.map((id) => b.perdure.start(listen.with({ id }))));
  const { sent, failed } = await b.perdure.send(ids, ping, 1);
  t.same(sent, known);
  t.equal(sent.length, 997);
  t.same(
    failed.map(({ id, error }) => [id, error.code]),
    ["r7", "r407", "r807"].map((id) => [id, "PERDURE_NOT_FOUND"]),
  );
  t.same(await b.sql("select count(*)::int as n, count(distinct run_id)::int as runs from :SCHEMA.events"), [
    { n: 997, runs: 997 },
  ]);
  t.same(await b.perdure.send([], ping, 1), { sent: [], failed: [] });
});

test("data that does not fit the event's schema is refused with its path, and nothing is stored", async (t) => {
  const schema: Schema<{ amount: number }> = {
    "~standard": {
      version: 1,
      vendor: "test",
      validate: (value) => {
        const { amount } = value as { amount: unknown };
        return Number(amount) > 0
          ? { value: { amount: Number(amount) } }
          : { issues: [{ message: "must be positive", path: ["amount"] }] };
      },
    },
  };
  const paid = event({ name: "paid", schema });
  const listen = workflow("listen", async () => (await paid.wait()).data);
  const b = await coldBench(t, { workflows: [listen] });
  const run = await b.perdure.start(listen);
  const refused = await rejection(run.send(paid, { amount: -1 }));
  t.match(refused, { code: "PERDURE_INVALID", message: /event "paid".*amount: must be positive/ });
  const many = await rejection(b.perdure.send([run.id], paid, { amount: 0 }));
  t.equal(many.code, "PERDURE_INVALID");
  t.equal(
    (await rejection(run.send(paid, { amount: 1, f: () => 1 } as never, { reference: "" }))).code,
    "PERDURE_NAME",
  );
  t.same(await mailIn(b), []);
  await run.send(paid, { amount: "12" as unknown as number });
  t.strictSame(await run.result(), { amount: 12 }, "what the schema returns is sent");
});

test("what cannot be stored, or is no event, is refused at the call", async (t) => {
  const listen = workflow("listen", async () => (await event<unknown>("any").wait()).data);
  const any = event<unknown>("any");
  const b = await coldBench(t, { workflows: [listen] });
  const run = await b.perdure.start(listen);
  const send = (data: unknown) => rejection(run.send(any, data));
  t.match(await send({ items: [1, () => 1] }), { code: "PERDURE_SERIALIZE", message: /\$\.items\[1\]: function/ });
  t.match(await send("x".repeat(1_048_577)), { code: "PERDURE_TOO_LARGE", message: /event "any"/ });
  t.match(await rejection(b.perdure.send(run.id, { name: "any" } as never, 1)), { code: "PERDURE_OPTION" });
  t.match(await rejection(b.perdure.send("", any, 1)), { code: "PERDURE_NAME" });
  t.match(await rejection(run.send(any, 1, { refrence: "x" } as never)), {
    code: "PERDURE_OPTION",
    message: /did you mean "reference"/,
  });
  t.same(await mailIn(b), []);
  await run.send(any, undefined);
  t.equal(await run.result(), null, "no data is null");
});

test("data comes through as it was sent, up to the limit", async (t) => {
  const any = event<unknown>("any");
  const echo = workflow("echo", async () => {
    const { data } = await any.wait();
    await ping.wait();
    return data instanceof Map ? [...data] : (data as string).length;
  });
  const { perdure } = await coldBench(t, { workflows: [echo] });
  const through = async (data: unknown): Promise<unknown> => {
    const run = await perdure.start(echo);
    await run.send(any, data);
    await reaches(run, "suspended");
    await run.send(ping, 0);
    return run.result();
  };
  const date = new Date(5);
  t.strictSame(await through(new Map<unknown, unknown>([[date, 10n]])), [[date, 10n]]);
  t.equal(await through("x".repeat(1_048_576 - 30)), 1_048_546, "a value of just under the limit");
});

test("one event for a run that two processes may take is consumed once, by one of them", async (t) => {
  const got = new Map<string, number>();
  const note = step("note", async (id: string) => void got.set(id, (got.get(id) ?? 0) + 1));
  const listen = workflow("listen", async (id: string) => {
    const { data } = await ping.wait();
    await note(id);
    return data;
  });
  const b = await coldBench(t, { workflows: [listen] });
  const second = await b.another();
  const client = await b.another({ worker: false });
  const ids = Array.from({ length: 40 }, (_, n) => `r${n}`);
  const runs = await Promise.all(ids.map((id, n) => [b.perdure, second][n % 2]!.start(listen.with({ id }), id)));
  await Promise.all(runs.map((run) => reaches(run, "suspended")));
  await client.send(ids, ping, 6);
  t.same(new Set(await Promise.all(runs.map((run) => run.result({ timeout: PATIENCE_MS })))), new Set([6]));
  t.same([...got.values()], Array(40).fill(1));
  t.same(await b.sql("select count(*)::int as n, count(consumed_by)::int as consumed from :SCHEMA.events"), [
    { n: 40, consumed: 40 },
  ]);
});
