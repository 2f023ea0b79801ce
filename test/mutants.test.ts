/** `npm run mutants` takes minutes; that each of its mutants still finds what it takes out is seen here. */
import { existsSync, readFileSync } from "node:fs";
import t from "tap";
import { MUTANTS } from "./support/mutant-list.ts";

for (const { name, file, find, replace, test } of MUTANTS) {
  void t.test(`taken out: ${name}`, async (t) => {
    const text = readFileSync(new URL(`../lib/${file}`, import.meta.url), "utf8");
    t.ok(text.includes(find), `${file} holds what is taken out`);
    t.not(find, replace);
    t.ok(existsSync(new URL(test, import.meta.url)), `${test} is there`);
  });
}
