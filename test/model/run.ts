/**
 * `npm run model -- --runs N [--seed S] [--lanes L]`: so many programs at random. Prints what was played, and each program that failed.
 * `--seed S --path P`: one that failed, as it was printed. `--program file`: the one in a file.
 */
import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { trials } from "./trial.ts";

const text = { type: "string" } as const;
const { values } = parseArgs({ options: { runs: text, seed: text, path: text, program: text, lanes: text } });
const programs = values.program === undefined ? undefined : [JSON.parse(await readFile(values.program, "utf8"))];
const single = programs !== undefined || values.path !== undefined;
const seed = values.seed === undefined ? undefined : Number(values.seed);
const given = { runs: Number(values.runs ?? (single ? 1 : 100)), seed, path: values.path, programs };
const all = await trials(given, single ? 1 : Number(values.lanes ?? 4));
for (const { text } of all) console.log(text);
process.exitCode = all.some(({ failed }) => failed) ? 1 : 0;
