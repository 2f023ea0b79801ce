/**
 * Random programs against the reference: `npm run model -- --runs N` plays more. PERDURE_MODEL_SEED replays the random ones of a failure that
 * was printed.
 */
import { equal } from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { test } from "tap";
import { type Program, programs, textOf } from "./program.ts";
import { trial } from "./trial.ts";

const FIXED = 20261122;
/** No new program after so long; each takes seconds, most of which it waits. */
const TIME_MS = 10_000;
const SHRINK_MS = 10_000;
const given = process.env.PERDURE_MODEL_SEED;
/** The mutants are told to leave chance out. */
const ONLY = { skip: process.env.PERDURE_MODEL === "chosen" && "without chance" };
const FOUND = fileURLToPath(new URL("../../../test/model/programs.json", import.meta.url));

test("a program that was printed is the same when it is read", (t) => {
  fc.assert(fc.property(programs(), (program) => equal(textOf(JSON.parse(textOf(program))), textOf(program))));
  t.end();
});

test("programs chosen by hand come to what the reference says", async (t) => {
  const chosen = Object.values(JSON.parse(readFileSync(FOUND, "utf8")) as Record<string, Program>);
  const { text, played } = await trial({ runs: chosen.length, programs: chosen });
  t.equal(played, chosen.length);
  t.comment(text);
});

test("random programs come to what the reference says, with a fixed seed and with a random one", ONLY, async (t) => {
  const all = await Promise.all([
    trial({ runs: 20, seed: FIXED, timeMs: TIME_MS, shrinkMs: SHRINK_MS }),
    trial({ runs: 20, seed: given === undefined ? undefined : Number(given), timeMs: TIME_MS, shrinkMs: SHRINK_MS }),
  ]);
  for (const { failed, text, played } of all) {
    t.notOk(failed, text);
    t.ok(played > 0, "at least one program was played");
    t.comment(text);
  }
});
