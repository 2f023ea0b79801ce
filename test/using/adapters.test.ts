/** The transactions of drizzle, kysely and knex as clients of `using()`, and drizzle and kysely over the client of a transaction step. */
import { eq } from "drizzle-orm";
import { drizzle as drizzleOver } from "drizzle-orm/node-postgres";
import { pgTable, text } from "drizzle-orm/pg-core";
import knexOver from "knex";
import {
  CamelCasePlugin,
  Kysely,
  PostgresAdapter,
  PostgresDialect,
  PostgresIntrospector,
  PostgresQueryCompiler,
} from "kysely";
import pg from "pg";
import { type Test, test } from "tap";
import { type CallerClient, drizzle, knex, kysely } from "../../lib/adapters.ts";
import { currentStep, event, type TransactionClient, transaction, workflow } from "../../lib/index.ts";
import { type Bench, bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { PATIENCE_MS, reaches, rejection } from "../support/gate.ts";

const PROMPT_MS = 1500;
const note = event<string>("note");
const greet = workflow("greet", async (name: string) => `hello ${name}`);
const listen = workflow("listen", async () => (await note.wait()).data);

interface Order {
  id: string;
  total: string | null;
}
const orders = pgTable("orders", { id: text("id").primaryKey(), total: text("total") });

/** An ORM as this test needs it: a transaction in which it writes its own row, and the client that the adapter makes of it. */
interface Orm {
  transaction(work: (client: CallerClient, insert: (id: string) => Promise<unknown>) => Promise<void>): Promise<void>;
  /** Without a transaction. */
  readonly bare: CallerClient;
}

type Made = (t: Test, pool: pg.Pool, bench: Bench) => Orm;

const ORMS: Record<string, Made> = {
  drizzle: (_, pool) => {
    const db = drizzleOver(pool);
    return {
      transaction: (work) =>
        db.transaction((tx) => work(drizzle(tx), async (id) => tx.insert(orders).values({ id, total: "1" }))),
      bare: drizzle(db),
    };
  },
  kysely: (_, pool) => {
    // A plugin that renames columns must not matter.
    const db = new Kysely<{ orders: Order }>({
      dialect: new PostgresDialect({ pool }),
      plugins: [new CamelCasePlugin()],
    });
    return {
      transaction: (work) =>
        db
          .transaction()
          .execute((trx) => work(kysely(trx), (id) => trx.insertInto("orders").values({ id, total: "1" }).execute())),
      bare: kysely(db),
    };
  },
  knex: (t, _, { url, schema }) => {
    const db = knexOver({ client: "pg", connection: url, searchPath: [schema], pool: { min: 0, max: 2 } });
    t.teardown(() => db.destroy());
    return {
      transaction: (work) =>
        db.transaction((trx) => work(knex(trx), async (id) => trx("orders").insert({ id, total: "1" }))),
      bare: knex(db),
    };
  },
};

async function setUp(t: Test): Promise<{ b: Bench; pool: pg.Pool }> {
  const b = await bench(t, { workflows: [greet, listen] });
  await b.sql("create table :SCHEMA.orders (id text primary key, total text)");
  const pool = new pg.Pool({ connectionString: b.url, max: 2, options: `-c search_path=${b.schema}` });
  t.teardown(() => pool.end());
  return { b, pool };
}

for (const [name, make] of Object.entries(ORMS)) {
  test(`${name}: a run and the row of its transaction exist together or not at all, and the commit wakes the worker`, async (t) => {
    const { b, pool } = await setUp(t);
    const orm = make(t, pool, b);
    const there = await b.perdure.start(listen.with({ id: "there" }));
    const other = await b.perdure.start(listen.with({ id: "other" }));
    await Promise.all([reaches(there, "suspended"), reaches(other, "suspended")]);
    const text = 'a "quoted" \\ back\'slash, ? and $1 — ü\u{1f600}, {"a": [null]}';
    const start = async (client: CallerClient): Promise<void> => {
      const using = b.perdure.using(client);
      await using.start(greet.with({ id: `order-${name}`, tags: ["a?b", "c"] }), text);
      await using.send("there", note, text, { reference: "r" });
      await using.cancel("other", "not ? needed");
    };
    const failed = await rejection(
      orm.transaction(async (client, insert) => {
        await insert("order-1");
        await start(client);
        throw new Error("changed my mind");
      }),
    );
    t.equal(failed.message, "changed my mind");
    t.same(await b.sql("select id from :SCHEMA.orders"), []);
    t.same(await b.sql("select id, state from :SCHEMA.run order by key"), [
      { id: "there", state: "suspended" },
      { id: "other", state: "suspended" },
    ]);
    t.same(await b.sql("select run from :SCHEMA.mail"), []);

    await orm.transaction(async (client, insert) => {
      await insert("order-1");
      await start(client);
    });
    const since = performance.now();
    t.equal(await b.perdure.get(`order-${name}`).result({ timeout: PATIENCE_MS }), `hello ${text}`);
    t.equal(await there.result(), text);
    t.match(await rejection(other.result()), { code: "PERDURE_CANCELLED", message: /not \? needed/ });
    t.ok(performance.now() - since < PROMPT_MS, "by the hint, not by the poll");
    t.same(await b.sql("select id from :SCHEMA.orders"), [{ id: "order-1" }]);
  });

  test(`${name}: errors are ours, show no values, and what is no transaction is refused`, async (t) => {
    const { b, pool } = await setUp(t);
    const orm = make(t, pool, b);
    await (await b.perdure.start(greet.with({ id: "a" }), "Ada")).result();
    await orm.transaction(async (client, insert) => {
      const using = b.perdure.using(client);
      t.match(await rejection(using.start(greet.with({ id: "a" }), "Bob")), { code: "PERDURE_CONFLICT" });
      t.match(await rejection(using.send("nobody", note, "x")), { code: "PERDURE_NOT_FOUND" });
      await insert("after the refusals");
    });
    t.same(await b.sql("select id from :SCHEMA.orders"), [{ id: "after the refusals" }]);
    t.match(await rejection(b.perdure.using(orm.bare).start(greet, "Ada")), {
      code: "PERDURE_STATE",
      message: /in no transaction/,
    });

    await b.sql("alter table :SCHEMA.input add constraint broken check (args::text !~ 'secret')");
    const broken = await rejection(
      orm.transaction(async (client) => void (await b.perdure.using(client).start(greet, "secret"))),
    );
    t.match(broken, { name: "PerdureError", code: "PERDURE_DATABASE", message: /violates check constraint "broken"/ });
    t.notMatch(broken.message, /secret|select/);
    t.equal(broken.error.cause.code, "23514");
  });
}

test("a schema whose name holds placeholders of every kind is no trouble to any of them", async (t) => {
  const { b, pool } = await setUp(t);
  const schema = `${b.schema} a?b $1 "c" :d`;
  const odd = await b.another({ schema });
  t.teardown(() => pool.query(`drop schema if exists ${pg.escapeIdentifier(schema)} cascade`).catch(() => {}));
  for (const [name, make] of Object.entries(ORMS)) {
    await make(t, pool, b).transaction(async (client) => {
      await odd.using(client).start(greet.with({ id: name }), name);
    });
    t.equal(await odd.get(name).result({ timeout: PATIENCE_MS }), `hello ${name}`);
  }
  await odd.shutdown();
  await b.sql(`drop schema ${pg.escapeIdentifier(schema)} cascade`);
});

test("drizzle's and kysely's own kinds of transaction, nested and by hand, work as well", async (t) => {
  const { b, pool } = await setUp(t);
  const db = drizzleOver(pool);
  await db.transaction(async (tx) => {
    await rejection(
      tx.transaction(async (nested) => {
        await b.perdure.using(drizzle(nested)).start(greet.with({ id: "gone" }), "Ada");
        throw new Error("back to the savepoint");
      }),
    );
    await b.perdure.using(drizzle(tx)).start(greet.with({ id: "kept" }), "Ada");
  });
  const trx = await new Kysely({ dialect: new PostgresDialect({ pool }) }).startTransaction().execute();
  await b.perdure.using(kysely(trx)).start(greet.with({ id: "by-hand" }), "Ada");
  await trx.commit().execute();
  await eventually(async () => {
    const found = await b.sql("select id from :SCHEMA.runs where state = 'completed' order by id");
    return found.map(({ id }) => id).join() === "by-hand,kept";
  }, PATIENCE_MS);
});

test("drizzle over the client of a transaction step: its rows commit with the checkpoint, once", async (t) => {
  let tries = 0;
  const place = transaction(
    { name: "place", retry: { type: "fixed", maxAttempts: 2, delay: 1 } },
    async (tx, id: string) => {
      const db = drizzleOver(tx as never);
      await db.insert(orders).values({ id, total: "9" });
      tries += 1;
      if (tries === 1) throw new Error("too early");
      return (await db.select().from(orders).where(eq(orders.id, id)))[0]!.total;
    },
  );
  const checkout = workflow("checkout", async (id: string) => place(id));
  const b = await bench(t, { workflows: [checkout] });
  await b.sql("create table :SCHEMA.orders (id text primary key, total text)");
  const database = new URL(b.url);
  database.searchParams.set("options", `-c search_path=${b.schema}`);
  const engine = await b.another({ database: database.href });
  await b.perdure.shutdown();
  t.equal(await (await engine.start(checkout, "order-1")).result(), "9");
  t.equal(tries, 2);
  t.same(await b.sql("select id from :SCHEMA.orders"), [{ id: "order-1" }]);
});

/** One connection that is there already, and that kysely neither opens, begins, nor gives back. */
function kyselyOver(client: TransactionClient): Kysely<{ orders: Order }> {
  const connection = {
    executeQuery: async ({ sql, parameters }: { sql: string; parameters: readonly unknown[] }) => ({
      rows: (await client.query(sql, [...parameters])).rows,
    }),
    // biome-ignore lint/correctness/useYield: kysely asks for a generator, and nothing here streams
    async *streamQuery(): AsyncGenerator<never> {
      throw new Error("a transaction step does not stream");
    },
  };
  const nothing = async (): Promise<void> => {};
  return new Kysely({
    dialect: {
      createAdapter: () => new PostgresAdapter(),
      createIntrospector: (db) => new PostgresIntrospector(db),
      createQueryCompiler: () => new PostgresQueryCompiler(),
      createDriver: () => ({
        init: nothing,
        acquireConnection: async () => connection,
        beginTransaction: nothing,
        commitTransaction: nothing,
        rollbackTransaction: nothing,
        releaseConnection: nothing,
        destroy: nothing,
      }),
    },
  });
}

test("kysely over the client of a transaction step, taken from currentStep(): its rows commit with the checkpoint, once", async (t) => {
  let tries = 0;
  const place = transaction(
    { name: "place", retry: { type: "fixed", maxAttempts: 2, delay: 1 } },
    async (_, id: string) => {
      const db = kyselyOver(currentStep().tx!).withSchema(schema);
      await db.insertInto("orders").values({ id, total: "9" }).execute();
      tries += 1;
      if (tries === 1) throw new Error("too early");
      return (await db.selectFrom("orders").selectAll().where("id", "=", id).executeTakeFirstOrThrow()).total;
    },
  );
  const checkout = workflow("checkout", async (id: string) => place(id));
  const { perdure, sql, schema } = await bench(t, { workflows: [checkout] });
  await sql("create table :SCHEMA.orders (id text primary key, total text)");
  t.equal(await (await perdure.start(checkout, "order-1")).result(), "9");
  t.equal(tries, 2);
  t.same(await sql("select id from :SCHEMA.orders"), [{ id: "order-1" }]);
});
