/**
 * What retention costs: one day of thirty is deleted, page after page with nothing else at work, then others as an engine does it, beside one-step
 * runs under load. `PERDURE_BENCH_RUNS=10000000` sets how many runs are kept; asked by name only.
 */
import { readFileSync } from "node:fs";
import type { Expire } from "../lib/db/expire.ts";
import { Expiry } from "../lib/worker/expiry.ts";
import { keepBusy, median, number, percentile, spread, table } from "./support/figures.ts";
import type { Lab } from "./support/lab.ts";
import { oneStep } from "./throughput.ts";

const KEPT = Number(process.env.PERDURE_BENCH_RUNS ?? 600_000);
const DAYS = 30;
const DAY_MS = 86_400_000;
const FILL = 200_000;
const WIDTH = 50;
const WINDOW_MS = 2000;
const ROUNDS = 7;

interface Load {
  readonly rate: number;
  readonly slowest: number;
}

export async function retention(lab: Lab): Promise<void> {
  const schema = await lab.schema();
  await fill(lab, schema);
  const client = await lab.client();
  const expire: Expire = async (keepMs, behind, limit) => {
    const text = `select gone, last::text from ${schema}.expire_runs($1, $2, $3)`;
    return (await client.query({ name: "expire", text, values: [keepMs, behind, limit] })).rows[0];
  };
  const [{ pid }] = (await client.query("select pg_backend_pid() as pid")).rows;
  const day = await dayOf(expire, DAYS - 1, pid);
  const engine = await lab.engine(schema, { workflows: [oneStep], worker: { concurrency: 200 }, retention: "forever" });
  const load = async (ms: number): Promise<Load> => {
    const times: number[] = [];
    const began = performance.now();
    const count = await keepBusy(WIDTH, ms, async () => {
      const since = performance.now();
      await (await engine.start(oneStep, 1)).result();
      times.push(performance.now() - since);
    });
    return { rate: (count * 1000) / (performance.now() - began), slowest: percentile(times, 0.99) };
  };
  await load(WINDOW_MS / 2);
  const [alone, beside]: [Load[], Load[]] = [[], []];
  let gone = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    alone.push(await load(WINDOW_MS));
    const older: Expire = async (_, behind, limit) => {
      const found = await expire((DAYS - 2 - round) * DAY_MS, behind, limit);
      gone += found.gone;
      return found;
    };
    const expiry = new Expiry({ expire: older, keepMs: null, logger: silent });
    expiry.moved();
    beside.push(await load(WINDOW_MS));
    await expiry.stop();
  }
  const row = (name: string, of: readonly Load[]): string[] => [
    name,
    spread(of.map(({ rate }) => rate)),
    spread(of.map(({ slowest }) => slowest)),
  ];
  const head = ["one day of 30", "deleted", "s", "µs a run", "µs of Postgres CPU a run", "slowest page, ms"];
  lab.print(table([head, ["  nothing else at work", ...day]]));
  const loaded = ["one-step runs, 50 in flight", "runs/s", "p99 ms"];
  lab.print(table([loaded, row("  nothing is deleted", alone), row("  old runs are deleted", beside)]));
  const ratio = median(beside.map(({ rate }, at) => rate / alone[at]!.rate));
  lab.print(`  ${number(gone)} deleted meanwhile, at ${number(ratio)} of the rate`);
}

async function fill(lab: Lab, schema: string): Promise<void> {
  const since = performance.now();
  for (let from = 0; from < KEPT; from += FILL) {
    const until = Math.min(from + FILL, KEPT);
    const at = `now() - interval '${DAYS} days' * (1 - g::float8 / ${KEPT})`;
    await lab.sql(`with made as (
        insert into ${schema}.run (id, workflow, version, queue, priority, state, epoch, created_at, started_at, finished_at)
        select gen_random_uuid(), 'one-step', '1', 'default', 0, 'completed', 1, ${at}, ${at}, ${at} from generate_series(${from + 1}, ${until}) g
        returning key, created_at as at),
      stored as (insert into ${schema}.input (run, args, hash) select key, '{"json":[1]}', md5(key::text) from made),
      ended as (insert into ${schema}.outcome (run, value) select key, '{"json":2}' from made)
      insert into ${schema}.checkpoint select key, 'step:one/' || md5(key::text) || '#0', 1, 1, 'step', 'one', 'completed', '{"json":2}', null, 1, 1, at, at from made`);
  }
  for (const name of ["run", "input", "outcome", "checkpoint"]) await lab.sql(`vacuum analyze ${schema}.${name}`);
  await lab.sql("checkpoint");
  const [{ size }] = await lab.sql(
    `select pg_size_pretty(sum(pg_total_relation_size(oid))) as size from pg_class where relnamespace = '${schema}'::regnamespace and relkind = 'r'`,
  );
  lab.print(`  ${number(KEPT)} runs of one step, ${size}, in ${number((performance.now() - since) / 1000)} s`);
}

/** Deletes what is older than so many days, page after page. */
async function dayOf(expire: Expire, days: number, pid: number): Promise<string[]> {
  const [since, cpu] = [performance.now(), cpuOf(pid)];
  let gone = 0;
  let slowest = 0;
  for (let behind: string | null = "0"; behind !== null; ) {
    const called = performance.now();
    const found = await expire(days * DAY_MS, behind, 2000);
    slowest = Math.max(slowest, performance.now() - called);
    gone += found.gone;
    behind = found.last;
  }
  const ms = performance.now() - since;
  return [gone, ms / 1000, (ms * 1000) / gone, (cpuOf(pid) - cpu) / gone, slowest].map(number);
}

/** What a process of this machine has used, in µs. NaN: it is not of this machine, or this is no Linux. */
function cpuOf(pid: number): number {
  try {
    const times = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
    return (Number(times[11]) + Number(times[12])) * 10_000;
  } catch {
    return Number.NaN;
  }
}

const quiet = (): void => {};
const silent = { debug: quiet, info: quiet, warn: console.warn, error: console.error };
