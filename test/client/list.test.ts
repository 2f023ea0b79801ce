/** Finding runs: filters, pages that hold while runs are made, cursors that cannot be made up, and control of many at once. */
import { test } from "tap";
import { Perdure, type RunFilter, type RunState, type RunStatus, sleep, step, workflow } from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { eventually } from "../support/eventually.ts";
import { PATIENCE_MS, reaches, rejection } from "../support/gate.ts";

const quick = workflow("quick", async (how: string) => {
  if (how === "throws") throw new Error("as told");
  return how;
});
const slow = workflow({ name: "slow", version: "2", queue: "heavy" }, async () => void (await sleep("1h")));
const workflows = [quick, slow];

const ids = ({ runs }: { runs: RunStatus[] }): string[] => runs.map(({ id }) => id);

test("filters, alone and together, give the runs that fit, newest first", async (t) => {
  const { perdure, sql } = await bench(t, { workflows, worker: { queues: ["default"] } });
  const at: Date[] = [];
  for (const [id, how, tags] of [
    ["a-1", "returns", ["red"]],
    ["a-2", "throws", ["red", "blue"]],
    ["b_1", "returns", undefined],
    ["b%1", "returns", ["blue", "red", "green"]],
  ] as const) {
    const run = await perdure.start(quick.with({ id, ...(tags && { tags }) }), how);
    await run.result().catch(() => {});
    at.push((await run.status()).createdAt);
    await eventually(
      async () => (await sql("select clock_timestamp() > $1::timestamptz + interval '2 ms' as ok", [at.at(-1)]))[0].ok,
    );
  }
  await perdure.start(slow.with({ id: "c-1", priority: 7, delay: "1h" }));
  const found = async (filter: RunFilter): Promise<string[]> => ids(await perdure.list(filter));
  const cases: [RunFilter, string[]][] = [
    [{}, ["c-1", "b%1", "b_1", "a-2", "a-1"]],
    [{ workflow: "quick" }, ["b%1", "b_1", "a-2", "a-1"]],
    [{ workflow: slow }, ["c-1"]],
    [{ workflow: "Quick" }, []],
    [{ version: "2" }, ["c-1"]],
    [{ version: "1", queue: "heavy" }, []],
    [{ queue: "heavy" }, ["c-1"]],
    [{ state: "failed" }, ["a-2"]],
    [{ state: ["pending", "failed", "pending"] }, ["c-1", "a-2"]],
    [{ tags: ["red"] }, ["b%1", "a-2", "a-1"]],
    [{ tags: ["red", "blue"] }, ["b%1", "a-2"]],
    [{ tags: ["blue", "red", "green"], state: "completed" }, ["b%1"]],
    [{ tags: ["re"] }, []],
    [{ tags: [] }, ["c-1", "b%1", "b_1", "a-2", "a-1"]],
    [{ idPrefix: "a-" }, ["a-2", "a-1"]],
    [{ idPrefix: "b_" }, ["b_1"]],
    [{ idPrefix: "b%" }, ["b%1"]],
    [{ idPrefix: "A" }, []],
    [{ idPrefix: "a-", state: "failed", tags: ["blue"], workflow: quick, version: "1", queue: "default" }, ["a-2"]],
    [{ createdAfter: at[1]! }, ["c-1", "b%1", "b_1", "a-2"]],
    [{ createdBefore: at[1]! }, ["a-1"]],
    [{ createdAfter: at[1]!, createdBefore: at[3]! }, ["b_1", "a-2"]],
    [{ createdAfter: at[2]!, workflow: "quick", idPrefix: "b" }, ["b%1", "b_1"]],
    [{ createdBefore: new Date(0) }, []],
    [{ createdAfter: new Date("9999-01-01") }, []],
  ];
  for (const [filter, expected] of cases) t.strictSame(await found(filter), expected, JSON.stringify(filter));

  const { runs } = await perdure.list({ idPrefix: "b%1" });
  t.strictSame(runs[0], await perdure.get("b%1").status(), "a run in the list is what status() says");
  const [waiting] = (await perdure.list({ workflow: slow })).runs;
  t.match(waiting, { state: "pending", waitingFor: "start", priority: 7, parentId: null, tags: [], due: Date });
});

test("pages follow one another without a gap or a run twice, while runs are made and finish", async (t) => {
  const { perdure, sql } = await bench(t, { workflows });
  const all = Array.from({ length: 120 }, (_, n) => `run-${n}`);
  await Promise.all(all.map((id) => perdure.start(quick.with({ id, tags: ["x"] }), "returns")));
  for (const filter of [
    {},
    { tags: ["x"] },
    { workflow: quick },
    { idPrefix: "run-" },
    { createdAfter: new Date(0) },
  ]) {
    const seen: string[] = [];
    let pages = 0;
    for (let after: string | null = null, more = true; more; ) {
      const page = await perdure.list({ ...filter, limit: 25, after });
      seen.push(...ids(page));
      pages += 1;
      after = page.next;
      more = after !== null;
      await perdure.start(
        quick.with({ tags: ["x"], id: `run-late-${pages}-${seen.length}-${JSON.stringify(filter)}` }),
        "returns",
      );
    }
    t.ok(pages >= 5);
    t.equal(new Set(seen).size, seen.length, "none twice");
    t.strictSame(
      all.filter((id) => !seen.includes(id)),
      [],
      "none is missing",
    );
  }
  const keys = await sql("select id from :SCHEMA.run order by key desc");
  t.strictSame(
    ids(await perdure.list({ limit: 500 })),
    keys.map(({ id }) => id),
  );
  t.equal((await perdure.list()).runs.length, 50);
  const exact = await perdure.list({ limit: keys.length });
  t.equal(exact.next, null, "a page that ends with the last run has no next");
});

test("rare runs behind many others are found, by each filter alone", async (t) => {
  const { perdure, sql } = await bench(t, { workflows, worker: false });
  await perdure.start(quick.with({ id: "rare-1", tags: ["rare"] }), "x");
  await perdure.start(slow.with({ id: "rare-2", tags: ["rare"] }));
  await sql(`insert into :SCHEMA.run (id, workflow, version, queue, priority, state, tags, created_at, started_at, finished_at)
    select 'many-' || n, 'many', '9', 'default', 0, 'completed', '{many}', now() + n * interval '1 ms', now(), now() from generate_series(1, 25000) n`);
  await perdure.start(slow.with({ id: "rare-3", tags: ["rare"] }));
  const behind = { tags: ["rare"], limit: 2 };
  const first = await perdure.list(behind);
  t.strictSame(ids(first), ["rare-3", "rare-2"]);
  t.strictSame(ids(await perdure.list({ ...behind, after: first.next })), ["rare-1"]);
  t.strictSame(ids(await perdure.list({ idPrefix: "rare-" })), ["rare-3", "rare-2", "rare-1"]);
  t.strictSame(ids(await perdure.list({ state: "pending" })), ["rare-3", "rare-2", "rare-1"]);
  t.strictSame(ids(await perdure.list({ workflow: quick })), ["rare-1"]);
  t.strictSame(ids(await perdure.list({ version: "2" })), ["rare-3", "rare-2"]);
  t.strictSame(ids(await perdure.list({ queue: "heavy" })), ["rare-3", "rare-2"]);
  t.strictSame(ids(await perdure.list({ tags: ["many"], idPrefix: "many-24999" })), ["many-24999"]);
});

test("a cursor that was forged, damaged, or made for another filter is refused", async (t) => {
  const { perdure, another, schema } = await bench(t, { workflows, worker: false });
  for (const n of [1, 2, 3]) await perdure.start(quick.with({ id: `run-${n}` }), "x");
  const { next } = await perdure.list({ limit: 1 });
  const [key, seal] = Buffer.from(next!, "base64url").toString().split(".");
  const forged = [
    "",
    "1",
    key!,
    `${next}x`,
    next!.slice(0, -1),
    ` ${next}`,
    Buffer.from(`${Number(key) - 1}.${seal}`).toString("base64url"),
    Buffer.from(`0${key}.${seal}`).toString("base64url"),
    Buffer.from("1 or true").toString("base64url"),
    "\0",
    7 as unknown as string,
  ];
  for (const after of forged) {
    const refused = await rejection(perdure.list({ after }));
    t.match(refused, {
      code: "PERDURE_OPTION",
      message: /^after of list\(\) is not the `next` of a page with this filter: /,
    });
  }
  const foreign = await rejection(perdure.list({ after: next, state: "pending" }));
  t.match(foreign, { code: "PERDURE_OPTION", message: /with the same filter/ });
  const { perdure: elsewhere } = await bench(t, { workflows });
  t.equal((await rejection(elsewhere.list({ after: next }))).code, "PERDURE_OPTION", "of another schema");
  t.strictSame(ids(await perdure.list({ after: next, limit: 5 })), ["run-2", "run-1"], "the limit may change");
  t.strictSame(ids(await (await another()).list({ after: next })), ["run-2", "run-1"], "another process takes it");
  const { next: sorted } = await perdure.list({ state: ["running", "pending"], limit: 1 });
  t.strictSame(ids(await perdure.list({ state: ["pending", "running"], after: sorted })), ["run-2", "run-1"]);
  t.ok(schema);
});

test("bad options of list() are named, with what was probably meant", async (t) => {
  const { perdure } = await bench(t, { workflows, worker: false });
  const cases: [object, string, RegExp][] = [
    [{ status: "failed" }, "PERDURE_OPTION", /unknown option "status" of list\(\)/],
    [{ idprefix: "x" }, "PERDURE_OPTION", /did you mean "idPrefix"\?/],
    [{ state: "complete" }, "PERDURE_OPTION", /state in list\(\) cannot be "complete"; did you mean "completed"\?/],
    [{ state: [] }, "PERDURE_OPTION", /state in list\(\) is an empty array; name at least one of pending/],
    [{ state: 3 }, "PERDURE_OPTION", /state in list\(\) must be an array, not 3/],
    [{ limit: 0 }, "PERDURE_OPTION", /limit of list\(\) must be a whole number from 1 to 500, not 0/],
    [{ limit: 501 }, "PERDURE_OPTION", /from 1 to 500, not 501/],
    [{ limit: "9" }, "PERDURE_OPTION", /not "9"/],
    [{ tags: "red" }, "PERDURE_OPTION", /tags in list\(\) must be an array/],
    [{ tags: [""] }, "PERDURE_NAME", /tag in list\(\) "" \(0 bytes\) is empty/],
    [{ workflow: "" }, "PERDURE_NAME", /workflow in list\(\)/],
    [{ workflow: () => 1 }, "PERDURE_NAME", /workflow in list\(\) must be a string/],
    [{ version: 2 }, "PERDURE_NAME", /version in list\(\) must be a string, not 2/],
    [{ idPrefix: "" }, "PERDURE_NAME", /idPrefix in list\(\)/],
    [{ idPrefix: "a\0" }, "PERDURE_NAME", /control character/],
    [{ idPrefix: "\ud800" }, "PERDURE_NAME", /lone surrogate/],
    [{ createdAfter: "yesterday" }, "PERDURE_OPTION", /createdAfter in list\(\) must be a valid Date/],
    [{ createdBefore: new Date(Number.NaN) }, "PERDURE_OPTION", /createdBefore in list\(\)/],
  ];
  for (const [options, code, message] of cases) t.match(await rejection(perdure.list(options)), { code, message });
  t.match(await rejection(perdure.list(null as never)), { code: "PERDURE_OPTION", message: /must be a plain object/ });
  await perdure.start(quick.with({ id: "a b" }), "x");
  for (const idPrefix of ["a ", "a", "\u{10ffff}", "\ud7ff", "😀"]) {
    t.strictSame(
      ids(await perdure.list({ idPrefix })),
      idPrefix.startsWith("a") ? ["a b"] : [],
      JSON.stringify(idPrefix),
    );
  }
  const unlaunched = new Perdure({});
  t.match(await rejection(unlaunched.list()), { code: "PERDURE_STATE" });
});

test("cancel() takes ids or a filter, over all pages, and says what became of each", async (t) => {
  const { perdure, sql } = await bench(t, { workflows });
  const many = Array.from({ length: 1203 }, (_, n) => `slow-${n}`);
  await Promise.all(many.map((id) => perdure.start(slow.with({ id, tags: ["t7"] }))));
  await perdure.start(slow.with({ id: "other" }));
  await (await perdure.start(quick.with({ id: "finished", tags: ["t7"] }), "returns")).result();
  const one = await perdure.cancel(["slow-0", "slow-0", "finished", "nobody"], { reason: "by hand" });
  t.strictSame(one.done, ["slow-0"]);
  t.match(one.failed, [
    {
      id: "finished",
      error: { code: "PERDURE_STATE", message: 'run "finished" is completed, so it cannot be cancelled' },
    },
    { id: "nobody", error: { code: "PERDURE_NOT_FOUND", message: /there is no run "nobody"/ } },
  ]);
  t.strictSame((await perdure.cancel(["slow-0"])).done, ["slow-0"], "cancelled again, it stays so");
  const all = await perdure.cancel({ tags: ["t7"] }, { reason: "tenant left" });
  t.equal(all.done.length, 1202);
  t.strictSame(all.failed, [], "what had finished is not asked for");
  t.match(await perdure.get("slow-7").status(), { state: "cancelled", reason: "tenant left" });
  t.equal((await perdure.get("slow-0").status()).reason, "by hand");
  await reaches(perdure.get("other"), "suspended");
  t.strictSame((await sql("select count(*)::int as n from :SCHEMA.run where state = 'cancelled'"))[0].n, 1203);
  t.strictSame(await perdure.cancel([]), { done: [], failed: [] });
});

test("retry() lets all go on that failed or are blocked", async (t) => {
  let broken = true;
  const ran: string[] = [];
  const pay = step("pay", async (id: string) => {
    ran.push(id);
    if (broken) throw new Error("down");
    return id;
  });
  const buy = workflow("buy", async (id: string) => pay(id));
  const { perdure, sql } = await bench(t, { workflows: [buy] });
  const handles = await Promise.all([1, 2, 3].map((n) => perdure.start(buy.with({ id: `buy-${n}` }), `${n}`)));
  await Promise.all(handles.map((run) => run.result({ timeout: PATIENCE_MS }).catch(() => {})));
  broken = false;
  t.strictSame((await perdure.retry({ state: "completed" })).done, []);
  const { done, failed } = await perdure.retry({ workflow: buy });
  t.strictSame([done, failed], [["buy-3", "buy-2", "buy-1"], []]);
  t.strictSame(await Promise.all(handles.map((run) => run.result({ timeout: PATIENCE_MS }))), ["1", "2", "3"]);
  const again = await perdure.retry(["buy-1"], { replay: "flexible" });
  t.match(again.failed, [
    { id: "buy-1", error: { code: "PERDURE_STATE", message: /is completed, so it cannot be retried/ } },
  ]);
  t.equal(ran.length, 6);
  t.equal((await sql("select from :SCHEMA.round")).length, 3);
});

test("control of many without saying which is refused, and does nothing", async (t) => {
  const { perdure } = await bench(t, { workflows });
  const run = await perdure.start(slow);
  const refusals: [() => Promise<unknown>, string, RegExp][] = [
    [
      () => perdure.cancel({}),
      "PERDURE_OPTION",
      /^the filter of cancel\(\) is empty, and would cancel every run; say which: workflow, /,
    ],
    [() => perdure.cancel({ tags: [] }), "PERDURE_OPTION", /is empty/],
    [() => perdure.retry({ state: undefined }), "PERDURE_OPTION", /is empty, and would retry every run/],
    [
      () => perdure.cancel(run.id as never),
      "PERDURE_OPTION",
      /needs a filter or an array of run ids.*get\(id\)\.cancel\(\)/,
    ],
    [() => perdure.cancel([run.id, 5 as never]), "PERDURE_NAME", /run id must be a string, not 5/],
    [
      () => perdure.cancel({ workflow: slow, limit: 5 } as never),
      "PERDURE_OPTION",
      /unknown option "limit" of cancel\(\)/,
    ],
    [
      () => perdure.cancel([run.id], { reason: 5 as never }),
      "PERDURE_OPTION",
      /^reason of cancel\(\) must be a string/,
    ],
    [() => perdure.cancel([run.id], { why: "x" } as never), "PERDURE_OPTION", /unknown option "why" of cancel\(\)/],
    [
      () => perdure.retry([run.id], { replay: "lenient" as never }),
      "PERDURE_OPTION",
      /replay in retry\(\) cannot be "lenient"/,
    ],
  ];
  for (const [call, code, message] of refusals) t.match(await rejection(call()), { code, message });
  t.not((await run.status()).state satisfies RunState, "cancelled");
});
