/** Decorated services, compiled by real compilers under both calling conventions: killed in one process, they go on in another. */
import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { promisify } from "node:util";
import { type Test, test } from "tap";
import { freshSchema } from "../support/postgres.ts";
import { compile, ROOT } from "../support/readme.ts";

const SOURCES = `${ROOT}test/define/decorators`;
const LEGACY = { experimentalDecorators: true, emitDecoratorMetadata: true };
const OPTIONS = {
  target: "es2022",
  module: "nodenext",
  strict: true,
  rewriteRelativeImportExtensions: true,
  types: ["node"],
  skipLibCheck: true,
  rootDir: ".",
  outDir: "out",
};

/** A folder with the sources, a tsconfig.json, and the packages that they import. */
function folderFor(t: Test, options: object): string {
  const folder = t.testdir({ "package.json": '{ "type": "module" }', node_modules: { "@types": {} } });
  cpSync(SOURCES, folder, { recursive: true });
  symlinkSync(ROOT, `${folder}/node_modules/perdure`, "dir");
  for (const name of ["reflect-metadata", "@types/node", "undici-types"]) {
    if (existsSync(`${ROOT}node_modules/${name}`))
      symlinkSync(`${ROOT}node_modules/${name}`, `${folder}/node_modules/${name}`, "dir");
  }
  const config = { compilerOptions: { ...OPTIONS, ...options }, include: ["*.ts"], exclude: ["out"] };
  writeFileSync(`${folder}/tsconfig.json`, JSON.stringify(config));
  return folder;
}

const run = async (folder: string, args: string[], env: object = {}): Promise<string> => {
  const how = { cwd: folder, env: { ...process.env, NODE_OPTIONS: "", ...env }, timeout: 60_000 };
  return (await promisify(execFile)(process.execPath, args, how)).stdout;
};

/** Each takes a folder of sources and returns what Node is to run there. */
const compilers: Record<string, (folder: string) => Promise<string[]>> = {
  "TypeScript 7": async (folder) => {
    await compile(folder);
    return ["out/app.js"];
  },
  "TypeScript 6": async (folder) => {
    await run(folder, [`${ROOT}node_modules/typescript/bin/tsc`, "-p", "."]);
    return ["out/app.js"];
  },
  esbuild: async (folder) => {
    const { build } = await import("esbuild");
    const [entryPoints, outfile] = [[`${folder}/app.ts`], `${folder}/out/app.js`];
    const target = "node20";
    await build({ entryPoints, outfile, target, bundle: true, packages: "external", format: "esm", platform: "node" });
    return ["out/app.js"];
  },
  "esbuild, minified with names kept": async (folder) => {
    const { build } = await import("esbuild");
    const [entryPoints, outfile] = [[`${folder}/app.ts`], `${folder}/out/app.js`];
    const small = { minify: true, keepNames: true, target: "node20" };
    await build({
      entryPoints,
      outfile,
      ...small,
      bundle: true,
      packages: "external",
      format: "esm",
      platform: "node",
    });
    return ["out/app.js"];
  },
  tsx: async () => ["--import", import.meta.resolve("tsx"), "app.ts"],
};

/** What the compiler made; empty: nothing that stays, or names that say nothing. */
function written(folder: string, name: string): string {
  const file = ["service.js", "app.js"].map((out) => `${folder}/out/${out}`).find((out) => existsSync(out));
  return file && !name.includes("minified") ? readFileSync(file, "utf8") : "";
}

/** Both conventions of each, but for what only makes names shorter. */
const cases = Object.entries(compilers).flatMap(([name, prepare]) =>
  Object.entries(name.includes("minified") ? { TC39: {} } : { TC39: {}, experimentalDecorators: LEGACY }).map(
    ([convention, options]) => ({ name, prepare, convention, options }),
  ),
);

test("a run of decorated methods goes on in another process", { jobs: 3 }, (t) => {
  for (const { name, prepare, convention, options } of cases) {
    void t.test(`${name}, ${convention}`, { buffered: true }, async (one) => {
      const folder = folderFor(one, options);
      mkdirSync(`${folder}/out`);
      const node = await prepare(folder);
      const code = written(folder, name);
      if (code) one.equal(/__decorate(Class)?\(/.test(code), options === LEGACY, "compiled as it is said");
      if (name.startsWith("TypeScript")) one.equal(/__metadata\(/.test(code), options === LEGACY);
      const { url, schema } = await freshSchema(one);
      const env = { DATABASE_URL: url, SCHEMA: schema };
      const program = [...(options === LEGACY ? ["--import", "reflect-metadata"] : []), ...node];
      const killed = await run(folder, [...program, "r", "first", "journal"], env).catch((error) => error);
      one.equal(killed.signal, "SIGKILL", killed.stderr);
      const { results, same } = JSON.parse(await run(folder, [...program, "r", "second", "journal"], env));
      one.same(results, [
        [
          ...["reserved by first", "42 at attempt 2", "o1 booked", "label of o1 by first as Base.label"],
          ...["label of o1, again by first as Base.label", "thanks to second"],
        ],
        [
          ...[
            "reserved by first-eu, as eu.reserve",
            "42 at attempt 2",
            "o2 booked",
            "label of o2 by first-eu as eu.label",
          ],
          ...["label of o2, again by first-eu as eu.label", "thanks to second-eu"],
        ],
      ]);
      one.same(same, [true, true, "label of outside by second as Base.label", "outside booked"]);
      const journal = readFileSync(`${folder}/journal`, "utf8").trim().split("\n").sort();
      const charges = ["charge o1", "charge o1", "charge o2", "charge o2"];
      one.same(journal, [...charges, "hidden", "hidden", "reserve o1 first", "reserve o2 first-eu"], "each step once");
    });
  }
  t.end();
});
