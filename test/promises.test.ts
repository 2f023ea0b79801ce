/** Every behaviour that this library took over from others' studies, and every kind of bad input, is a named test, or is said to come later. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "tap";

const TESTS = fileURLToPath(new URL("../../test/", import.meta.url));
const promises = JSON.parse(readFileSync(join(TESTS, "promises.json"), "utf8")) as Record<string, string>;

const rows = (from: string, ...ranges: [number, number][]): string[] =>
  ranges.flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, i) => `${from} ${first + i}`));
const REQUIRED = [
  ...rows("aiki", [1, 85]),
  ...rows("dbos", [1, 67]),
  ...[1, 2, 3, 4, 5, 6, 7, 8, 9, 14].map((n) => `aiki W${n}`),
];
/** Rows about parts that do not exist yet, and why. */
const LATER = /^later: queues\b/;

const sources = (readdirSync(TESTS, { recursive: true }) as string[])
  .filter((file) => file.endsWith(".test.ts"))
  .map((file) => readFileSync(join(TESTS, file), "utf8"))
  .join("\n");

test("every promised behaviour has a test of that name", (t) => {
  const missing = REQUIRED.filter((row) => promises[row] === undefined);
  t.same(missing, [], "rows without a test");
  const named = Object.entries(promises).filter(([, name]) => !LATER.test(name));
  const gone = named.filter(([, name]) => !sources.includes(JSON.stringify(name)));
  t.same(gone, [], "rows whose test is gone");
  t.end();
});

test("no row is listed that nobody asked for", (t) => {
  t.same(
    Object.keys(promises).filter((row) => !REQUIRED.includes(row)),
    [],
  );
  t.end();
});

test("every kind of bad input has a test of that name", (t) => {
  const bad = JSON.parse(readFileSync(join(TESTS, "bad/rows.json"), "utf8")) as Record<string, string[]>;
  const numbers = Object.keys(bad).map((row) => Number.parseInt(row, 10));
  t.same(
    numbers,
    Array.from({ length: 67 }, (_, at) => at + 1),
  );
  const named = Object.entries(bad).flatMap(([row, names]) => names.map((name) => [row, name] as const));
  t.same(
    Object.entries(bad).filter(([, names]) => names.length === 0),
    [],
  );
  const gone = named.filter(([, name]) => !LATER.test(name) && !sources.includes(JSON.stringify(name)));
  t.same(gone, [], "rows whose test is gone");
  t.end();
});
