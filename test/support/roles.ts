/** A schema as the README sets it up: an owner that nobody logs in as, an engine that was granted to work, and logins of other kinds. */
import { randomBytes } from "node:crypto";
import pg from "pg";
import type { Test } from "tap";
import { Perdure, type PerdureOptions } from "../../lib/index.ts";
import { collector } from "./engine.ts";
import { freshDatabase } from "./postgres.ts";

export type Kind = "worker" | "sender" | "observer" | "payloads";
export type Rows = Record<string, any>[];

/** A session of a role; `:SCHEMA` stands for the schema. */
export interface Login {
  readonly name: string;
  readonly url: string;
  run(text: string, values?: unknown[]): Promise<Rows>;
  /** What the server has told this session beside its answers. */
  readonly notices: string[];
}

export interface Stage {
  readonly perdure: Perdure;
  readonly schema: string;
  readonly lines: string[];
  /** As a superuser. */
  readonly admin: Login;
  readonly owner: string;
  /** A new login, with so many grants. */
  login(grants?: readonly (readonly [kind: Kind, tenant?: string])[]): Promise<Login>;
}

/** A database of its own, as roles and what they make in `public` belong to more than a schema. */
export async function stage(t: Test, options: PerdureOptions, schema = "perdure"): Promise<Stage> {
  const url = await freshDatabase(t);
  const mark = randomBytes(4).toString("hex");
  const roles: string[] = [];
  const connect = async (name: string, as: string): Promise<Login> => {
    const client = new pg.Client({ connectionString: as });
    const notices: string[] = [];
    client.on("error", () => {});
    client.on("notice", ({ message }) => notices.push(message ?? ""));
    await client.connect();
    t.teardown(() => client.end());
    const run = async (text: string, values: unknown[] = []): Promise<Rows> =>
      (await client.query(text.replaceAll(":SCHEMA", `"${schema}"`), values)).rows;
    return { name, url: as, notices, run };
  };
  t.teardown(async () => {
    const last = new pg.Client({ connectionString: url });
    await last.connect();
    for (const role of roles.reverse()) await last.query(`drop owned by ${role} cascade`);
    for (const role of roles) await last.query(`drop role ${role}`);
    await last.end();
  });
  const admin = await connect("admin", url);
  const owner = `owner_${mark}`;
  roles.push(owner);
  await admin.run(`create role ${owner} nologin`);
  await admin.run(`grant create on database ${new URL(url).pathname.slice(1)} to ${owner}`);
  const as = (to: string, role: string): string =>
    Object.assign(new URL(to), { search: `?options=-c%20role%3D${role}` }).href;
  const migrator = new Perdure({ database: as(url, owner), schema });
  await migrator.migrate();
  await migrator.shutdown();
  const login = async (grants: readonly (readonly [kind: Kind, tenant?: string])[] = []): Promise<Login> => {
    const name = `r${roles.length}_${mark}`;
    roles.push(name);
    await admin.run(`create role ${name} login password '${name}'`);
    for (const [kind, tenant = null] of grants)
      await admin.run("select :SCHEMA.grant_to($1, $2, $3)", [name, kind, tenant]);
    return connect(name, Object.assign(new URL(url), { username: name, password: name }).href);
  };
  const worker = await login([["worker"]]);
  const logger = collector();
  const perdure = new Perdure({ database: worker.url, schema, logger, ...options });
  t.teardown(() => perdure.shutdown({ timeout: "5s" }));
  await perdure.launch();
  return { perdure, schema, lines: logger.lines, admin, owner, login };
}
