/** Roles that are bound to a tenant: whatever they ask, they reach the tenant's runs and learn of no other. */
import fc from "fast-check";
import { test } from "tap";
import { event, Perdure, sleep, workflow } from "../../lib/index.ts";
import { collector } from "../support/engine.ts";
import { reaches, rejection } from "../support/gate.ts";
import { type Login, type Rows, stage } from "../support/roles.ts";

const ping = event<unknown>("ping");
const child = workflow("child", async () => (await sleep("1h")).woken);
const listen = workflow("listen", async (many: number) => {
  const first = await ping.wait();
  if (many > 1) await child();
  return first.data;
});

/** What a statement answers: its rows, or its SQLSTATE and text. An id is the same as any other. */
async function answer(login: Login, text: string, id: string): Promise<string> {
  const plain = (value: unknown): string => JSON.stringify(value).replaceAll(JSON.stringify(id).slice(1, -1), "<id>");
  try {
    return plain(await login.run(text, [id]));
  } catch (error) {
    const { code, message, detail, hint } = error as Record<string, unknown>;
    return plain({ code, message, detail, hint });
  }
}

const VIEWS = {
  tenant_runs: "id",
  tenant_steps: "run_id",
  tenant_events: "run_id",
  tenant_timeline: "run_id",
  tenant_payloads: "run_id",
};
/** Ids around those of tenant acme. */
const AROUND = [
  "acme",
  "acme0",
  "acme.",
  "acme-2/x",
  "acmee/x",
  "ACME/x",
  "/acme/x",
  "globex/acme/x",
  "a/cme/x",
  "globex/x",
  "x",
  "acme\u{200b}/x",
  "%",
  "acme_",
];
const OWN = ["acme/x", "acme/", "acme//", "acme/../globex/x", "acme/globex/x", "acme/é", "acme/%"];

test("a tenant's roles reach no run of another's, and cannot tell whether there is one", async (t) => {
  const s = await stage(t, { workflows: [listen, child] });
  const tenant = await s.login([
    ["sender", "acme"],
    ["observer", "acme"],
    ["payloads", "acme"],
  ]);
  const everyone = await s.login([["sender"]]);
  const foreign = fc.oneof(
    fc.constantFrom(...AROUND),
    fc.string({ minLength: 1, maxLength: 20 }).filter((id) => !id.startsWith("acme/")),
  );
  const clean = (id: string): boolean => /^[^\p{C}]{1,60}$/u.test(id) && id.trim() === id;
  const verbs = [
    "select :SCHEMA.send_event($1, 'ping', '{\"from\": \"acme\"}')",
    "select :SCHEMA.send_event($1, 'ping', '1', 'twice')",
    "select :SCHEMA.send_event($1, 'other', '1')",
    "select :SCHEMA.cancel_run($1)",
    "select :SCHEMA.cancel_run($1, 'because')",
    "select :SCHEMA.start_run('listen', '[1]', $1)",
    "select :SCHEMA.start_run('listen', '[2]', $1)",
    "select :SCHEMA.start_run('child', '[]', $1, on_conflict => 'return_existing')",
    ...Object.entries(VIEWS).map(([view, id]) => `select * from :SCHEMA.${view} where ${id} = $1`),
  ];
  const started = new Set<string>();
  const rows = (): Promise<Rows> =>
    s.admin.run(
      "select r.*, r.xmin::text, (select count(*) from :SCHEMA.mail m where m.run = r.key) from :SCHEMA.run r where not r.id ~ '^acme/' order by r.key",
    );
  const property = fc.asyncProperty(
    foreign.filter(clean),
    fc.constantFrom(...verbs),
    fc.boolean(),
    async (id, verb, ended) => {
      const before = await answer(tenant, verb, id);
      if (!started.has(id)) {
        started.add(id);
        await everyone.run("select :SCHEMA.start_run('listen', '[1]', $1)", [id]);
        await everyone.run("select :SCHEMA.send_event($1, 'secret', '1')", [id]);
        if (ended) await everyone.run("select :SCHEMA.cancel_run($1)", [id]);
        else await reaches(s.perdure.get(id), "suspended");
      }
      const there = await rows();
      t.equal(await answer(tenant, verb, id), before, `${verb} of ${JSON.stringify(id)}`);
      t.same(await rows(), there, "and nothing has changed");
    },
  );
  await fc.assert(property, { numRuns: 60, verbose: true });
  for (const id of OWN) await tenant.run("select :SCHEMA.start_run('listen', '[2]', $1)", [id]);
  const [{ id: made }] = (await tenant.run("select :SCHEMA.start_run('listen', '[1]') as id")) as [{ id: string }];
  t.match(made, /^acme\/[0-9a-f-]{36}$/, "an id that the database makes is the tenant's");
  for (const id of OWN) {
    await tenant.run("select :SCHEMA.send_event($1, 'ping', '1')", [id]);
    await reaches(s.perdure.get(id), "suspended");
  }
  await tenant.run(
    "create function pg_temp.leak(text) returns boolean language plpgsql cost 0.0000001 as $$ begin raise notice '%', $1; return true; end $$",
  );
  for (const [view, id] of Object.entries(VIEWS)) {
    const seen = (await tenant.run(`select ${id} as whose from :SCHEMA.${view} where pg_temp.leak(${id})`)) as {
      whose: string;
    }[];
    t.ok(seen.length >= OWN.length, `${view} shows the tenant's own`);
    t.same(
      seen.filter((row) => !row.whose.startsWith("acme/")),
      [],
      view,
    );
  }
  t.same(
    tenant.notices.filter((id) => !id.startsWith("acme/")),
    [],
    "nor is a condition of the reader's asked of what it may not see",
  );
  t.ok(tenant.notices.length > 0);
  const children = await tenant.run("select id, parent_id from :SCHEMA.tenant_runs where parent_id is not null");
  t.equal(children.length, OWN.length, "children are whose their parent is");
});

test("a role is bound by what it was granted, by the role that it has set, and by none that it only says", async (t) => {
  const s = await stage(t, { workflows: [listen, child] });
  const acme = await s.login([["sender", "acme"]]);
  const globex = await s.login([
    ["sender", "globex"],
    ["observer", "globex"],
  ]);
  const web = await s.login();
  const all = await s.login([["sender"]]);
  await s.admin.run(`grant ${acme.name}, ${globex.name} to ${web.name}`);
  const begins = { code: "PD005", message: /must begin with "acme\/" or "globex\/"/ };
  t.match(await rejection(web.run("select :SCHEMA.start_run('listen')")), begins);
  t.match(await rejection(web.run("select :SCHEMA.start_run('listen', id => 'x/y')")), begins);
  await web.run("select :SCHEMA.start_run('listen', id => 'acme/a'), :SCHEMA.start_run('listen', id => 'globex/a')");
  await web.run(`set role ${acme.name}`);
  t.match(await rejection(web.run("select :SCHEMA.cancel_run('globex/a')")), { code: "PD001" });
  t.match((await web.run("select :SCHEMA.start_run('listen') as id"))[0]!.id, /^acme\//);
  for (const name of [globex.name, "perdure.tenant", "session_authorization"])
    await rejection(acme.run(`set ${name} = 'globex'; set role ${globex.name}`));
  t.match(await rejection(acme.run("select :SCHEMA.cancel_run('globex/a')")), { code: "PD001" });
  t.same(
    await all.run("select :SCHEMA.cancel_run('globex/a') as done"),
    [{ done: true }],
    "who is bound to none reaches all",
  );
  // A function of a tenant's, called by somebody who has no grant: it does not run as nobody.
  await s.admin.run(`create schema lent authorization ${acme.name}; grant usage on schema lent to public`);
  await acme.run(
    `create function lent.cancel(id text) returns boolean language sql security definer as 'select "perdure".cancel_run(id)'`,
  );
  const friend = await s.login();
  t.match(await rejection(friend.run("select lent.cancel('globex/a')")), {
    code: "42501",
    message: /has no grant here/,
  });
  t.match(await rejection(acme.run("select lent.cancel('globex/a')")), { code: "PD001" });
  t.same(await globex.run("select id from :SCHEMA.tenant_runs order by 1"), [{ id: "globex/a" }]);
  t.match(await rejection(s.admin.run("select :SCHEMA.grant_to($1, 'observer')", [acme.name])), {
    code: "PD005",
    message: /is bound to tenant "acme"/,
  });
  t.match(await rejection(s.admin.run("select :SCHEMA.grant_to($1, 'sender', 'acme')", [all.name])), {
    code: "PD005",
    message: /is bound to no tenant/,
  });
  for (const [kind, tenant, message] of [
    ["worker", "acme", /a worker cannot be bound/],
    ["sender", "a/b", /has a slash/],
    ["sender", "é".repeat(51), /has 102 bytes/],
    ["sender", "", /is empty/],
    ["reader", null, /kind cannot be "reader"/],
  ] as const)
    t.match(await rejection(s.admin.run("select :SCHEMA.grant_to($1, $2, $3)", [web.name, kind, tenant])), {
      code: "PD005",
      message,
    });
});

test("what was granted is granted again behind a migration, but not to another role of the same name", async (t) => {
  const s = await stage(t, { workflows: [child] });
  const sender = await s.login([["sender", "acme"]]);
  const gone = await s.login([["sender"]]);
  await s.admin.run(`drop owned by ${gone.name}; drop role ${gone.name}; create role ${gone.name} login`);
  // What a migration does that changes the arguments of a verb, and brings a table.
  const [{ text }] = (await s.admin.run(
    "select pg_get_functiondef(p.oid) as text from pg_proc p where p.proname = 'send_event' and p.pronamespace = ':SCHEMA'::regnamespace",
  )) as [{ text: string }];
  await s.admin.run(
    `set role ${s.owner}; drop function :SCHEMA.send_event; create table :SCHEMA.brought (n int); ${text}; select :SCHEMA.settle_rights(); reset role`,
  );
  t.match(
    await rejection(sender.run("select :SCHEMA.send_event('acme/a', 'ping')")),
    { code: "PD001" },
    "the sender may still send",
  );
  const [may] = await s.admin.run(
    "select has_schema_privilege($1, $2, 'usage') as gone, has_table_privilege(w.role, $3, 'select') as worker, has_table_privilege($4, $3, 'select') as sender from :SCHEMA.grantee w where w.kind = 'worker'",
    [gone.name, s.schema, `${s.schema}.brought`, sender.name],
  );
  t.same(may, { gone: false, worker: true, sender: false });
  const engine = new Perdure({ database: (await s.login()).url, logger: collector() });
  t.match(await rejection(engine.launch()), {
    code: "PERDURE_PRIVILEGE",
    message: /grant_to\('r\d+_\w+', 'worker'\)$/,
  });
  await s.admin.run(`set role ${s.owner}; delete from :SCHEMA.migrations; reset role`);
  const worker = await s.login([["worker"]]);
  const behind = new Perdure({ database: worker.url, logger: collector() });
  t.match(await rejection(behind.migrate()), {
    code: "PERDURE_SCHEMA",
    message: new RegExp(`role "${worker.name}" does not own it: run migrate\\(\\) as "${s.owner}"$`),
  });
  t.match(await rejection(behind.launch()), { code: "PERDURE_SCHEMA" }, "nor does a launch try");
});
