/** The checker is checked: with a safeguard taken out of a copy of the compiled code, a chaos run must find what that breaks. */
import { spawn } from "node:child_process";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { copyWith, type Edit, mutantFolder } from "../support/mutant.ts";

interface Mutant {
  readonly name: string;
  readonly edits: readonly Edit[];
  /** What breaks, at least. */
  readonly breaks: string;
  /** Beside those of the small size, faults that bring it to light. */
  readonly faults: readonly string[];
}

const SQL = "db/committed.js";
const MUTANTS: readonly Mutant[] = [
  {
    name: "the epoch of a claim is not compared",
    breaks: "I7",
    faults: ["freeze=12"],
    edits: [
      { file: SQL, find: "and r.epoch = p_epochs[1] and", replace: "and" },
      { file: SQL, find: "and g.epoch = h.epoch", replace: "" },
      { file: SQL, find: "and h.epoch = g.epoch", replace: "" },
      {
        file: "db/swift.js",
        find: "r.key = $1 and r.epoch = $2 and",
        replace: "r.key = $1 and $2::integer is not null and",
      },
    ],
  },
  {
    name: "a slot may have several checkpoints",
    breaks: "I4",
    faults: ["lost=30", "reset=10"],
    edits: [
      {
        file: SQL,
        find: "at         timestamptz not null,\n  primary key (run, slot, attempt)\n)",
        replace: "at         timestamptz not null\n)",
      },
    ],
  },
  {
    name: "events are consumed newest first",
    breaks: "I8",
    faults: ["kill=5"],
    edits: [{ file: "engine/mailbox.js", find: "?.shift()", replace: "?.pop()" }],
  },
  {
    name: "crashes are not counted",
    breaks: "I18",
    faults: ["kill=5"],
    edits: [
      {
        file: SQL,
        find: "crashes = r.crashes + case when p_innocent then 0 else 1 end",
        replace: "crashes = r.crashes",
      },
    ],
  },
];

const SEED = 4711;
const ARGUMENTS = ["--small", "--scale=0.5", "--gentle", "--hasty", `--seed=${SEED}`];

/** Which invariants a chaos run of a copy finds broken. */
async function broken(folder: string, faults: readonly string[]): Promise<string[]> {
  const named = faults.map((fault) => `--fault=${fault}`);
  const child = spawn(process.execPath, [join(folder, "test/chaos/run.js"), ...ARGUMENTS, ...named], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let output = "";
  for await (const chunk of child.stdout) output += chunk;
  if (!/^\d+ violations; seed/m.test(output)) throw new Error(`the chaos run did not come to its end:\n${output}`);
  const kept = /histories and logs in (.+)$/m.exec(output)?.[1];
  if (kept) await rm(kept, { recursive: true, force: true });
  return [...new Set([...output.matchAll(/^VIOLATION (I\d+)/gm)].map((match) => match[1]!))];
}

/** True: unchanged code breaks nothing, and each mutant what it must. `words`: only those whose name has one of them. */
export async function mutants(say: (line: string) => void, words: readonly string[]): Promise<boolean> {
  const folder = mutantFolder("chaos");
  let good = true;
  try {
    const all = [{ name: "unchanged", edits: [], breaks: "", faults: [] }, ...MUTANTS];
    for (const { name, edits, breaks, faults } of all) {
      if (words.length > 0 && !words.some((word) => name.includes(word))) continue;
      await copyWith(folder, name, edits);
      const found = await broken(folder, faults);
      const right = breaks === "" ? found.length === 0 : found.includes(breaks);
      good &&= right;
      say(
        `${right ? (breaks === "" ? "green" : "found") : "WRONG"}: ${name}: ${found.join(", ") || "nothing is broken"}`,
      );
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return good;
}
