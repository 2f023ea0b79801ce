/** Unchanged code never diverges, and each call has exactly one child: programs drawn at random, two engines, claims lost, runs paused. */
import { setTimeout as pause } from "node:timers/promises";
import { test } from "tap";
import { event, RunFailedError, race, sleep, start, step, type Workflow, workflow } from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";

const ROOTS = 25;
/** So long claims are lost, and runs paused and resumed. */
const STORM_MS = 8000;
const PATIENCE_MS = 60_000;
/** What a child that failed counts for, where it was caught. */
const CAUGHT = 1000;

/** What a body does: each comes to a number. */
type Op =
  | { readonly kind: "step" | "sleep" | "throw"; readonly n: number }
  | { readonly kind: "call" | "start" | "twice" | "race" | "lose" | "leave"; readonly child: Op; readonly beside: Op }
  | { readonly kind: "catch"; readonly child: Op }
  | { readonly kind: "all" | "then"; readonly ops: readonly Op[] };

/** Numbers from 0 to below n, the same for the same seed. */
function dice(seed: number): (n: number) => number {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    return Math.floor(((state >>> 0) / 2 ** 32) * n);
  };
}

function draw(roll: (n: number) => number, depth: number): Op {
  const n = roll(100);
  const inner = (): Op => draw(roll, depth - 1);
  if (depth === 0) return { kind: roll(3) === 0 ? "sleep" : "step", n };
  const kinds = ["call", "start", "twice", "race", "lose", "leave", "catch", "all", "all", "then", "step"] as const;
  const kind = kinds[roll(kinds.length)]!;
  if (kind === "step") return { kind, n };
  if (kind === "catch") return { kind, child: roll(2) === 0 ? { kind: "throw", n } : inner() };
  if (kind === "all" || kind === "then") return { kind, ops: Array.from({ length: 2 + roll(3) }, inner) };
  return { kind, child: inner(), beside: inner() };
}

const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);

/** What a program comes to, and how many runs it makes beside its own. */
function expected(op: Op): { value: number; children: number } {
  if ("ops" in op) {
    const parts = op.ops.map(expected);
    return { value: sum(parts.map((p) => p.value)), children: sum(parts.map((p) => p.children)) };
  }
  if ("n" in op) return { value: op.kind === "sleep" ? 0 : op.n, children: 0 };
  if (op.kind === "catch") {
    const { value, children } = expected(op.child);
    return { value: op.child.kind === "throw" ? CAUGHT : value, children: children + 1 };
  }
  const [child, beside] = [expected(op.child), expected(op.beside)];
  const times = op.kind === "twice" ? 2 : op.kind === "leave" ? 0 : 1;
  return { value: times * child.value + beside.value, children: child.children + beside.children + 1 };
}

const never = event("never");
const count = step("count", async (n: number) => n);

async function run(op: Op): Promise<number> {
  switch (op.kind) {
    case "step":
      return count(op.n);
    case "sleep":
      await sleep(op.n / 10);
      return 0;
    case "throw":
      throw new Error(`thrown ${op.n}`);
    case "all":
      return sum(await Promise.all(op.ops.map(run)));
    case "then": {
      let total = 0;
      for (const inner of op.ops) total += await run(inner);
      return total;
    }
    case "catch":
      return program(op.child).catch((error) => {
        if (error instanceof RunFailedError) return CAUGHT;
        throw error;
      });
    case "call":
      return sum(await Promise.all([program(op.child), run(op.beside)]));
    default:
      return withHandle(op);
  }
}

async function withHandle({ kind, child, beside }: Extract<Op, { beside: Op }>): Promise<number> {
  const handle = await start(program, child);
  const other = await run(beside);
  if (kind === "leave") return other;
  if (kind === "start") return other + (await handle.result());
  if (kind === "twice") return other + sum(await Promise.all([handle.result(), handle.result()]));
  if (kind === "lose") await race({ never, soon: 3 });
  const won = await race({ never, handle, late: "1h" });
  return won.winner === "handle" ? other + won.value : Number.NaN;
}

const program: Workflow<[op: Op], number> = workflow("program", (op: Op): Promise<number> => run(op));

test("random programs of children, races, waits and catches come to what they must while claims are lost, and runs paused and resumed, at random", async (t) => {
  const seed = Number(process.env.PERDURE_SEED ?? Date.now() % 1_000_000);
  t.comment(`PERDURE_SEED=${seed}`);
  const roll = dice(seed);
  const b = await bench(t, { workflows: [program], worker: { concurrency: 40 } });
  const another = await b.another();
  const programs = Array.from({ length: ROOTS }, () => draw(roll, 4));
  const wanted = programs.map(expected);
  t.comment(`${sum(wanted.map((w) => w.children))} children`);
  // As take_back does, but a crash is not counted: so many would be quarantined.
  const lose = `with lost as (select key from :SCHEMA.run where state = 'running' order by random() limit $1 for no key update skip locked)
    update :SCHEMA.run r set worker = null, pausing = false, state = case when pausing then 'paused' else 'pending' end,
      ready_at = case when not pausing then :SCHEMA.clock() end from lost l where r.key = l.key`;
  const some =
    "select array_agg(id) as ids from (select id from :SCHEMA.run where finished_at is null order by random() limit $1) r";
  const resume =
    "select * from :SCHEMA.resume_runs(array(select id from :SCHEMA.run where state = 'paused' or pausing))";
  let over = false;
  const losing = (async () => {
    while (!over) {
      await b.sql(lose, [1 + roll(4)]);
      await b.sql("select :SCHEMA.hint('cw')");
      const [{ ids }] = (await b.sql(some, [roll(4)])) as [{ ids: string[] | null }];
      // One that has finished meanwhile cannot be paused.
      await Promise.all(
        (ids ?? []).map((id) =>
          another
            .get(id)
            .pause()
            .catch(() => {}),
        ),
      );
      if (roll(3) === 0) await b.sql(resume);
      await pause(5 + roll(40));
    }
    await b.sql(resume);
  })();
  const engines = [b.perdure, another];
  const runs = await Promise.all(programs.map((op, n) => engines[n % 2]!.start(program.with({ id: `root-${n}` }), op)));
  const storm = setTimeout(() => {
    over = true;
  }, STORM_MS);
  t.teardown(() => clearTimeout(storm));
  const results = await Promise.all(
    runs.map((handle) => handle.result({ timeout: PATIENCE_MS }).catch((error: Error) => error.message)),
  );
  over = true;
  await losing;
  await eventually(
    async () => (await b.sql("select from :SCHEMA.run where finished_at is null")).length === 0,
    PATIENCE_MS,
  );
  t.same(
    results,
    wanted.map((w) => w.value),
  );
  t.same(await b.sql("select id, state, reason from :SCHEMA.run where state not in ('completed', 'failed')"), []);
  const [{ n }] = (await b.sql("select count(*)::int as n from :SCHEMA.run")) as [{ n: number }];
  t.equal(n, ROOTS + sum(wanted.map((w) => w.children)), "one run for each call");
});
