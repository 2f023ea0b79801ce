/** How a process takes its leave. */
import { test } from "tap";
import { bench, collector } from "../support/engine.ts";

test("a process that shuts down leaves no worker behind and is not taken for dead", async (t) => {
  const { another, sql } = await bench(t, {});
  const logger = collector();
  for (let n = 0; n < 8; n++) await (await another({ logger })).shutdown();
  t.same(logger.lines, []);
  t.equal((await sql("select from :SCHEMA.workers")).length, 1);
});
