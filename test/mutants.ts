/**
 * `npm run mutants`: each safeguard of the core is taken out of a copy of the compiled code, and the tests that hold it must turn
 * red. They must be green on an unchanged copy first, or red would say nothing.
 */
import { spawn } from "node:child_process";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { startPostgres } from "../lib/db/embedded.ts";
import { copyWith, type Edit, mutantFolder } from "./support/mutant.ts";
import { TEST_SERVER } from "./support/postgres.ts";

interface Mutant extends Edit {
  /** What it does without the safeguard. */
  readonly name: string;
  /** Under dist/test: at least one test of it must fail. */
  readonly test: string;
}

/** The fence of a write that goes by itself, and of those that go together. */
const FENCE = "and r.epoch = p_epochs[1] and r.state = 'running'";
const FENCES = "join held h on h.key = g.run and h.epoch = g.epoch\n";
const HELD = "where r.key = any(p_keys) and r.state = 'running' and";

const MUTANTS: readonly Mutant[] = [
  {
    name: "identical calls share one slot",
    file: "core/address.js",
    find: "this.#next.get(address) ?? 0",
    replace: "0",
    test: "engine/parallel.test.js",
  },
  {
    name: "all outcomes in line are handed over in one turn",
    file: "engine/pass.js",
    find: "if (this.#handover.next())",
    replace: "let some = false; while (this.#handover.next()) some = true; if (some)",
    test: "engine/parallel.test.js",
  },
  {
    name: "recorded outcomes are handed over in the order of the calls",
    file: "engine/history.js",
    find: "this.#called[at - 1] > place",
    replace: "false",
    test: "engine/parallel.test.js",
  },
  {
    name: "what is new begins before replay is quiescent",
    file: "engine/pass.js",
    find: "return !this.#flexible && ",
    replace: "return false && ",
    test: "engine/divergence.test.js",
  },
  {
    name: "a checkpoint is written whatever the epoch of its claim",
    file: "db/committed.js",
    find: FENCE,
    replace: FENCE.replace("and r.epoch = p_epochs[1] ", ""),
    test: "db/batches.test.js",
  },
  {
    name: "a checkpoint is written to a run that nobody runs",
    file: "db/committed.js",
    find: FENCE,
    replace: FENCE.replace(" and r.state = 'running'", ""),
    test: "db/batches.test.js",
  },
  {
    name: "checkpoints are written whatever the epochs of their claims",
    file: "db/committed.js",
    find: FENCES,
    replace: FENCES.replace(" and h.epoch = g.epoch", ""),
    test: "db/batches.test.js",
  },
  {
    name: "checkpoints are written to runs that nobody runs",
    file: "db/committed.js",
    find: HELD,
    replace: HELD.replace(" and r.state = 'running'", ""),
    test: "db/batches.test.js",
  },
  {
    name: "a run is given up whatever its mail counter says",
    file: "db/committed.js",
    find: "h.mail <> g.mail as mailed",
    replace: "false as mailed",
    test: "events/held.test.js",
  },
  {
    name: "a run whose end was there before the wait for it raises no mail counter",
    file: "db/committed.js",
    find: "where r.key in (select run from own where ord = any(v_ended))",
    replace: "where false",
    test: "children/children.test.js",
  },
  {
    name: "a child expires while its parent may ask for its end",
    file: "db/committed.js",
    find: "exit when v_needed is null;\n    v_keys := array(",
    replace: "exit;\n    v_keys := array(",
    test: "retention/retention.test.js",
  },
  {
    name: "an end is told to a run that has expired, for ever",
    file: "db/committed.js",
    find: "and exists (select from :SCHEMA.run r where r.key = n.follower)",
    replace: "",
    test: "retention/retention.test.js",
  },
  {
    name: "a run is looked for before its history is read, and not after",
    file: "client/handle.js",
    find: "return known.length > 0 ? entries : notFound(id);",
    replace: "return entries;",
    test: "retention/retention.test.js",
  },
];

/** A test that hangs without the safeguard has failed. */
const DEADLINE_S = 60;
const COPY = mutantFolder("tests");

const postgres = process.env.DATABASE_URL ? undefined : await startPostgres(TEST_SERVER);
const env = {
  ...process.env,
  DATABASE_URL: postgres?.url ?? process.env.DATABASE_URL,
  TAP_TIMEOUT: `${DEADLINE_S}`,
};

/** The names of the tests of a file that fail. A file with no green test at all tells of a broken copy, not of a safeguard. */
async function red(test: string): Promise<string[]> {
  const child = spawn(process.execPath, [join(COPY, "test", test)], { env, stdio: ["ignore", "pipe", "ignore"] });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), (DEADLINE_S + 20) * 1000);
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  clearTimeout(timer);
  const names = (verdict: string): string[] => [
    ...new Set([...output.matchAll(new RegExp(`^${verdict} \\d+ - (.*?)(?: # .*)?$`, "gm"))].map((match) => match[1]!)),
  ];
  if (names("ok").length === 0)
    throw new Error(`${test} has no green test: exit code ${code}\n${output.slice(0, 4000)}`);
  return names("not ok");
}

async function survivors(): Promise<string[]> {
  const left: string[] = [];
  await copyWith(COPY, "unchanged", []);
  for (const test of new Set(MUTANTS.map((mutant) => mutant.test))) {
    for (const name of await red(test)) left.push(`red without any mutant: ${test}: ${name}`);
  }
  for (const mutant of MUTANTS) {
    await copyWith(COPY, mutant.name, [mutant]);
    const names = await red(mutant.test);
    console.log(`${names.length > 0 ? "found" : "MISSED"}: ${mutant.name}`);
    for (const name of names) console.log(`    ${mutant.test}: ${name}`);
    if (names.length === 0) left.push(`no test of ${mutant.test} fails when ${mutant.name}`);
  }
  return left;
}

try {
  const left = await survivors();
  for (const line of left) console.error(line);
  process.exitCode = left.length > 0 ? 1 : 0;
} finally {
  await rm(COPY, { recursive: true, force: true });
  await postgres?.stop();
}
