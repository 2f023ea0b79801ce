/**
 * Does what has gathered in the tables slow the drain? In an empty schema, beside a million workflows that have finished, and before two
 * hundred thousand that are pending. They are copies of the rows of one. Takes many minutes, so it is asked by name only.
 */
import { spread, table } from "../../support/figures.ts";
import { oneByOne } from "../adapter.ts";
import type { Arena, Site } from "../arena.ts";
import type { Contender } from "../contenders.ts";
import { within } from "../ratios.ts";
import { bodies, drained, fitting } from "./drain.ts";

interface Ground {
  readonly empty: Site;
  /** Nothing is kept of what has finished by some. */
  readonly finished: Site | null;
  readonly pending: Site;
  /** How many are drained. */
  readonly count: number;
}

interface Round {
  readonly empty: number;
  readonly finished: number | null;
  readonly pending: number;
}

export async function scale(arena: Arena): Promise<void> {
  const rows: string[][] = [];
  for (const contender of await arena.contenders(["throughput", "default"])) {
    const row = await arena.trying(contender, () => measured(arena, contender));
    if (row) rows.push(row);
    await arena.clear();
  }
  const { finished, backlog } = arena.sizes;
  const titles = [finished, backlog].map((count) => count.toLocaleString("en-US"));
  arena.print(
    table([["one-step runs/s", "empty", `beside ${titles[0]} finished`, `before ${titles[1]} pending`], ...rows]),
  );
}

async function measured(arena: Arena, contender: Contender): Promise<string[]> {
  const ground = await prepared(arena, contender);
  const rounds: Round[] = [];
  for (let round = 0; round < arena.sizes.rounds; round += 1) rounds.push(await once(ground));
  const beside = (pick: (round: Round) => number | null): string => {
    const ratios = rounds.flatMap((round) => (pick(round) === null ? [] : [pick(round)! / round.empty]));
    return ratios.length === 0 ? "keeps none" : within(ratios);
  };
  return [
    contender.name,
    spread(rounds.map(({ empty }) => empty)),
    beside(({ finished }) => finished),
    beside(({ pending }) => pending),
  ];
}

async function prepared(arena: Arena, contender: Contender): Promise<Ground> {
  const { sizes } = arena;
  const empty = await arena.site(contender);
  const count = Math.min(await fitting(empty, "one-step", arena), sizes.backlog / (2 * sizes.rounds));
  const finished = contender.adapter.kept ? await arena.site(contender) : null;
  if (finished) {
    await drained(finished, "one-step", 1);
    await copy(finished, sizes.finished);
  }
  const pending = await arena.site(contender);
  const client = await pending.client();
  if (contender.adapter.kept) await client.startMany("one-step", 1);
  else await client.startMany("one-step", sizes.backlog);
  await pending.part();
  if (contender.adapter.kept) await copy(pending, sizes.backlog);
  return { empty, finished, pending, count: Math.floor(count) };
}

async function once({ empty, finished, pending, count }: Ground): Promise<Round> {
  return {
    empty: await bodies(empty, count, "started"),
    finished: finished && (await bodies(finished, count, "started")),
    pending: await bodies(pending, count, "there"),
  };
}

/** So many copies of all rows of the one workflow that is there. */
async function copy(site: Site, count: number): Promise<void> {
  for (const [name, differing] of site.contender.adapter.kept!) {
    const columns = await site.sql(`select quote_ident(attname) as name from pg_attribute
      where attrelid = '${name}'::regclass and attnum > 0 and not attisdropped and attgenerated = '' order by attnum`);
    const names = columns.map((column) => column.name);
    await site.sql(`insert into ${name} (${names}) overriding system value
      select ${names.map((column) => differing[column] ?? `t.${column}`)}
      from (select * from ${name}) t, generate_series(1, ${count}) g`);
  }
  await passSequences(site);
  await site.sql("vacuum analyze");
}

/** What is inserted later does not get the key of a copy. */
async function passSequences(site: Site): Promise<void> {
  const found = await site.sql(`select a.attrelid::regclass::text as name, a.attname as column,
      pg_get_serial_sequence(a.attrelid::regclass::text, a.attname) as sequence
    from pg_attribute a join pg_class c on c.oid = a.attrelid where a.attidentity <> '' and c.relkind = 'r'`);
  await oneByOne(found.length, async () => {
    const { name, column, sequence } = found.pop()!;
    await site.sql(`select setval('${sequence}', coalesce((select max(${column}) from ${name}), 0) + 1)`);
  });
}
