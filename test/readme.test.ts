/** The README is true: its first program does what is printed there, its blocks run, its tables are complete. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "tap";
import { RUN_STATES } from "../lib/core/states.ts";
import { ERROR_CODES, event, step, workflow } from "../lib/index.ts";
import { bench, collector } from "./support/engine.ts";
import { eventually } from "./support/eventually.ts";
import { freshDatabase, inDatabase, server } from "./support/postgres.ts";
import { chapters, compile, compileReadme, firstProgram, programOf, ROOT, tableUnder } from "./support/readme.ts";
import { runChapter } from "./support/readme-chapter.ts";

const programs = await compileReadme();

/** What the first program prints; killed with -9 when a line holds `killAt`. */
async function printed(args: string[], database: string, killAt?: string): Promise<string> {
  const env = { ...process.env, DATABASE_URL: database };
  const program: ChildProcess = spawn(process.execPath, [firstProgram, ...args], {
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  for await (const chunk of program.stdout!) {
    text += chunk;
    if (killAt && text.includes(killAt)) program.kill("SIGKILL");
  }
  return text;
}

test("the first program, run, killed and run again, prints what the first screen says", async (t) => {
  const [screen] = chapters();
  const console = screen!.blocks.find(({ language }) => language === "console")!.text;
  const expected = console.split(/^\$ .*\n/m).slice(1);
  const plain = (text: string): string => text.replace(/kill -9 \d+/g, "kill -9 PID");
  // Side by side, so in two databases: an engine takes what it finds.
  const first = freshDatabase(t).then((database) => printed([], database));
  const database = await freshDatabase(t);
  const killed = await printed(["order-43"], database, "reserving");
  const second = await printed(["order-43"], database);
  t.same([await first, killed, second].map(plain), expected.map(plain));
});

test("the first screen is one", (t) => {
  const text = readFileSync(`${ROOT}README.md`, "utf8").split("\n## ")[0]!;
  t.ok(text.trimEnd().split("\n").length < 60);
  t.end();
});

test("every other block runs, in the order of its chapter", async (t) => {
  // Roles belong to the server, and go once the database is gone in which they have rights.
  const admin = await server();
  const roles = chapters().flatMap(({ blocks }) =>
    blocks.flatMap(({ text }) => text.match(/(?<=^create role )\w+/gm) ?? []),
  );
  const dropRoles = (): Promise<unknown> => inDatabase(admin, (client) => client.query(`drop role if exists ${roles}`));
  await dropRoles();
  t.teardown(dropRoles);
  const database = await freshDatabase(t);
  for (const chapter of programs) {
    const promised = chapter.blocks.flatMap(({ text }) => text.match(/\/\/=>/g) ?? []).length;
    t.equal(await runChapter(programOf(chapter), database), promised, `${chapter.title}: ${promised} assertions`);
  }
});

test("a blocked run names both sides to a person, and retry() takes it up once its code fits", async (t) => {
  const [old, other] = ["old", "other"].map((name) => step(name, async () => name));
  const go = event("go");
  const order = (first: () => Promise<string>) =>
    workflow("order", async () => {
      const name = await first();
      await go.wait();
      return name;
    });
  const { perdure, another } = await bench(t, { workflows: [order(old!)], worker: { concurrency: 1 } });
  const run = await perdure.start(order(old!).with({ id: "order-42" }));
  await eventually(async () => (await run.status()).state === "suspended", 10_000);
  await perdure.shutdown();
  const logger = collector();
  const wrong = await another({ workflows: [order(other!)], logger });
  await wrong.send("order-42", go);
  const blocked = await eventually(async () => {
    const status = await wrong.get("order-42").status();
    return status.state === "blocked" ? status : null;
  }, 10_000);
  t.match(blocked.reason, /diverged.*"step:other.*"step:old/s, "both sides are named");
  await wrong.shutdown();
  t.match(logger.lines.join(), /run "order-42" of workflow "order" is blocked: diverged/, "a person is told");
  const right = await another({ workflows: [order(old!)] });
  await right.get("order-42").retry();
  t.equal(await right.get("order-42").result({ timeout: "20s" }), "old");
});

test("the table of error codes is that of the code", (t) => {
  const rows = tableUnder("Error codes");
  const codes = rows.map(([code]) => code!.replaceAll("`", ""));
  t.same(codes, Object.keys(ERROR_CODES));
  t.ok(
    rows.every(([, meaning, remedy]) => meaning && remedy),
    "each with its meaning and a remedy",
  );
  t.end();
});

test("the table of options is that of the code", (t) => {
  const source = readFileSync(`${ROOT}lib/settings.ts`, "utf8");
  const known = /const KEYS = \[([^\]]*)\]/.exec(source)![1]!.match(/\w+/g);
  t.same(
    tableUnder("Options").map(([name]) => name!.replaceAll("`", "")),
    known,
  );
  t.end();
});

test("what the pages link to exists", (t) => {
  for (const page of ["README.md", "lib/README.md", "sql/README.md"]) {
    const text = readFileSync(`${ROOT}${page}`, "utf8");
    const folder = page.slice(0, page.lastIndexOf("/") + 1);
    const anchors = [...text.matchAll(/^#+ (.*)$/gm)].map(([, title]) =>
      title!
        .toLowerCase()
        .replace(/[^\w -]/g, "")
        .replaceAll(" ", "-"),
    );
    for (const [, link] of text.matchAll(/\]\(([^)]+)\)/g)) {
      const [path, anchor] = link!.split("#");
      if (path) t.ok(existsSync(`${ROOT}${folder}${path}`), `${page}: ${link}`);
      else t.ok(anchors.includes(anchor!), `${page}: ${link}`);
    }
  }
  t.end();
});

test("sql/README names every table, state and SQLSTATE", (t) => {
  const text = readFileSync(`${ROOT}sql/README.md`, "utf8");
  const schema = readdirSync(`${ROOT}sql/schema`).map((file) => readFileSync(`${ROOT}sql/schema/${file}`, "utf8"));
  const tables = [...schema.join("\n").matchAll(/create table :SCHEMA\.(\w+)/g)].map(([, name]) => name!);
  const codes = [...schema.join("\n").matchAll(/PD\d{3}/g)].map(([code]) => code);
  t.ok(tables.length > 5 && codes.length > 0);
  for (const name of new Set([...tables, ...RUN_STATES, ...codes])) t.ok(text.includes(`\`${name}\``), name);
  t.end();
});

test("the package holds what a user needs and nothing else", (t) => {
  // npm's own words go to stderr; scripts of the package are not run.
  const text = execFileSync("npm", ["pack", "--json", "--dry-run", "--ignore-scripts"], {
    cwd: ROOT,
    encoding: "utf8",
  });
  const files: string[] = JSON.parse(text)[0].files.map(({ path }: { path: string }) => path);
  const wanted =
    /^(dist\/lib\/[\w/-]+\.(js|d\.ts)|sql\/(schema|committed)\/[\w-]+\.sql|(sql\/|lib\/|lib\/aiki\/)?README\.md|examples\/[\w/.-]+|CHANGELOG\.md|LICENSE|package\.json)$/;
  t.same(
    files.filter((file) => !wanted.test(file)),
    [],
    "nothing else",
  );
  const sources = (readdirSync(`${ROOT}lib`, { recursive: true }) as string[]).filter((file) => file.endsWith(".ts"));
  const compiled = sources.flatMap((file) => [".js", ".d.ts"].map((end) => `dist/lib/${file.replace(/\.ts$/, end)}`));
  const pages = ["README.md", "CHANGELOG.md", "LICENSE", "package.json", "sql/README.md"];
  const needed = [
    ...compiled,
    ...pages,
    ...["schema", "committed"].flatMap((folder) =>
      readdirSync(`${ROOT}sql/${folder}`).map((file) => `sql/${folder}/${file}`),
    ),
  ];
  t.same(
    needed.filter((file) => !files.includes(file)),
    [],
    "all that",
  );
  t.end();
});

/** The declarations that an application's compiler reads, and what they import from other packages. */
function foreignImports(file: string, seen: Set<string>): string[] {
  if (seen.has(file)) return [];
  seen.add(file);
  const paths = [...readFileSync(file, "utf8").matchAll(/(?:from|import\()\s*"([^"]+)"/g)].map(([, path]) => path!);
  return paths.flatMap((path) => {
    if (!path.startsWith(".")) return [`${file}: ${path}`];
    return foreignImports(join(dirname(file), path).replace(/\.(ts|js)$/, ".d.ts"), seen);
  });
}

test("the public types need no other package's types than Node's", (t) => {
  const seen = new Set<string>();
  for (const entry of ["index", "adapters", "testing/index", "aiki/index"])
    t.same(foreignImports(`${ROOT}dist/lib/${entry}.d.ts`, seen), []);
  t.ok(seen.size > 10);
  t.end();
});

test("the published types compile strictly, with the settings that a compiler has by itself", async (t) => {
  const folder = t.testdir({
    "app.ts": `import { Perdure, step, workflow } from "perdure";
      import { drizzle, knex, kysely } from "perdure/adapters";
      const add = step("add", async (a: number, b: number) => a + b);
      const sum = workflow("sum", async (n: number) => ({ sum: await add(n, 1) }));
      export const perdure = new Perdure({ workflows: [sum], shutdownOn: ["SIGTERM"] });
      export const run = async (): Promise<{ sum: number }> => (await perdure.start(sum, 1)).result();
      export const adapters = [drizzle, knex, kysely];`,
    "tsconfig.json": JSON.stringify({
      compilerOptions: {
        strict: true,
        exactOptionalPropertyTypes: true,
        skipLibCheck: false,
        target: "es2022",
        module: "nodenext",
        noEmit: true,
        paths: {
          perdure: [`${ROOT}dist/lib/index.d.ts`],
          "perdure/adapters": [`${ROOT}dist/lib/adapters.d.ts`],
        },
      },
      include: ["app.ts"],
    }),
  });
  await t.resolves(compile(folder));
});
