/** The house rules: imports run one way, Postgres is known in one room, files stay short and say what they are for. */

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "tap";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const LONGEST = 400;
const GENERATED = "lib/db/committed.ts";

/** Room → the rooms it may import, besides itself. A file right under lib/ is a room of its own. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  core: [],
  // When a schedule fires: checked where it is defined, computed where it is fired. Pure, and the only room that knows cron-parser.
  schedule: ["core"],
  define: ["core", "schedule"],
  // Replaces functions of the process for a while: apart from all that works with them.
  strict: ["core"],
  db: ["core"],
  engine: ["core", "db"],
  worker: ["core", "db", "engine", "schedule"],
  client: ["core", "db", "schedule"],
  codec: ["core"],
  "seam.ts": ["core", "db", "engine"], // what perdure/testing puts into an engine: types
  "settings.ts": ["core", "define", "db"],
  "launched.ts": ["core", "define", "db", "engine", "worker", "client", "codec", "strict", "seam.ts", "settings.ts"],
  "signals.ts": [], // what happens to the process, of all engines in it
  "perdure.ts": ["core", "define", "db", "client", "settings.ts", "launched.ts", "signals.ts"],
  "index.ts": ["core", "define", "db", "client", "settings.ts", "perdure.ts"],
  cli: ["core", "define", "db", "client", "perdure.ts"],
  dashboard: ["core", "define", "client", "perdure.ts"],
  testing: ["core", "define", "db", "client", "engine", "seam.ts", "settings.ts", "launched.ts", "perdure.ts"],
  "adapters.ts": ["core"], // an entry point of its own, over any client
  // A second set of names over the public core: types of the rooms that it shows, and the engine; no store, no engine code.
  aiki: ["core", "define", "client", "db", "settings.ts", "perdure.ts"],
};

const SQL = new RegExp(
  '["\'`]\\s*(select\\s[^"\']*\\sfrom\\s|select\\s+[\\w"]+[.(]|insert\\s+into\\s|update\\s+\\S+\\s+set\\s|delete\\s+from\\s|' +
    "(create|alter|drop)\\s+(table|schema|index|function|view)\\s|listen\\s+\\S|notify\\s+\\S|with\\s+\\w+\\s+as\\s*\\()",
  "i",
);

function filesIn(folder: string, ending: string): string[] {
  let found: string[] = [];
  try {
    found = readdirSync(join(ROOT, folder), { recursive: true }) as string[];
  } catch {}
  return found
    .map((file) => join(folder, file).split(sep).join("/"))
    .filter((file) => file.endsWith(ending) && !file.includes("/node_modules/"))
    .sort();
}

const read = (file: string): string => readFileSync(join(ROOT, file), "utf8");
const lines = (file: string): number => read(file).trimEnd().split("\n").length;
const withoutComments = (text: string): string => text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
const roomOf = (file: string): string => file.split("/")[1]!;

function importsOf(file: string): string[] {
  const text = withoutComments(read(file));
  return [...text.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*"([^"]+)"/g)].map((match) => match[1]!);
}

const lib = filesIn("lib", ".ts");
const code = [...lib, ...["test", "examples", "bench"].flatMap((folder) => filesIn(folder, ".ts"))];

/** The files that break a rule, each with what it does wrong. */
function breaking(files: readonly string[], rule: (file: string) => readonly string[]): string[] {
  return files.flatMap((file) => rule(file).map((wrong) => `${file}: ${wrong}`));
}

test("imports run one way", (t) => {
  const wrong = breaking(lib, (file) => {
    const room = roomOf(file);
    const allowed = MAY_IMPORT[room];
    if (!allowed) return ["stands in no known room"];
    return importsOf(file)
      .filter((path) => path.startsWith("."))
      .map((path) =>
        roomOf(
          normalize(join(dirname(file), path))
            .split(sep)
            .join("/"),
        ),
      )
      .filter((other) => other !== room && !allowed.includes(other))
      .map((other) => `${room} may not import ${other}`);
  });
  t.same(wrong, []);
  t.end();
});

test("only db/ knows Postgres, and no SQL stands outside db/ and sql/", (t) => {
  const others = lib.filter((path) => roomOf(path) !== "db");
  t.same(
    breaking(others, (file) => importsOf(file).filter((path) => /^pg(-.*)?$/.test(path))),
    [],
  );
  t.same(
    breaking(others, (file) => SQL.exec(withoutComments(read(file)))?.slice(0, 1) ?? []),
    [],
  );
  t.end();
});

test("files are imported by their own name, and export by name", (t) => {
  const relative = (file: string) => importsOf(file).filter((path) => path.startsWith("."));
  t.same(
    breaking(code, (file) => relative(file).filter((path) => !/\.(ts|json)$/.test(path))),
    [],
    "ending .ts",
  );
  t.same(
    breaking(lib, (file) => relative(file).filter((path) => /(^|\/)index\.ts$/.test(path))),
    [],
    "not index.ts",
  );
  const exported = /^export default|\bas default\b/m;
  t.same(
    breaking(code, (file) => exported.exec(withoutComments(read(file)))?.slice(0, 1) ?? []),
    [],
    "no default",
  );
  t.same(
    code.filter((file) => /(^|\/)(utils?|helpers?|misc|common)(\/|\.ts$)/.test(file)),
    [],
    "names that say something",
  );
  t.end();
});

test("files say at the top what they are for, and stay short", (t) => {
  t.same(
    code.filter((file) => !/^(#!.*\n)?\/\*\*\s/.test(read(file))),
    [],
    "a first sentence",
  );
  const all = [...lib, ...filesIn("sql/schema", ".sql")].filter((file) => file !== GENERATED);
  const longest = all.map((file) => ({ file, count: lines(file) })).sort((a, b) => b.count - a.count);
  for (const { file, count } of longest.slice(0, 5)) t.comment(`${count} lines: ${file}`);
  t.same(
    longest.filter(({ count }) => count > LONGEST),
    [],
    `no more than ${LONGEST} lines`,
  );
  t.end();
});

test("the top level is fixed", (t) => {
  const allowed =
    "lib sql test examples bench package.json package-lock.json tsconfig.json README.md CHANGELOG.md LICENSE";
  const ignored = "node_modules dist";
  const known = new Set(`${allowed} ${ignored}`.split(" "));
  const entries = readdirSync(ROOT).filter((name) => !name.startsWith(".") && !name.endsWith(".tgz"));
  t.same(
    entries.filter((name) => !known.has(name)),
    [],
  );
  t.end();
});
