/** perdure/testing in the runners that people have: a test of a user's passes, fails when the workflow is wrong, and leaves nothing open. */
import { spawn } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "tap";
import { server } from "../support/postgres.ts";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
/** Put in where the text is: this file imports no such thing. */
const HERE = "./";
const LIB = new URL("../../lib/", import.meta.url).href;

/** A workflow, and what its test looks at; `DAYS` is how long its trial lasts. */
const TRIAL = `
  import { sleep, step, workflow } from "${LIB}index.js";
  import { exportHistory, replayHistory, testPerdure } from "${LIB}testing/index.js";
  const charge = step("charge", async (user) => { throw new Error("the real one: " + user); });
  const trial = workflow("trial", async (user) => {
    await sleep({ days: Number(process.env.DAYS) });
    return charge(user);
  });
  async function bench() {
    const t = await testPerdure({ workflows: [trial], replay: "always" });
    t.stub(charge, async (user) => "charged " + user);
    return t;
  }
  export async function fortnight() {
    const t = await bench();
    try {
      const run = await t.perdure.start(trial, "u1");
      await t.advance({ days: 14 });
      const { state } = await run.status();
      const { same } = await replayHistory(await exportHistory(t.perdure, run.id), { workflows: [trial] });
      return [state, same, t.calls(charge)];
    } finally {
      await t.stop();
    }
  }
  const fine = { state: "completed", value: "charged u1" };
  // One of the two is enough.
  export async function everywhere() {
    if (process.env.DAYS !== "14") return fine;
    const t = await bench();
    try {
      return (await t.crashEverywhere(trial, "u1")).end;
    } finally {
      await t.stop();
    }
  }
  export const EXPECTED = ["completed", true, [["u1"]]];
`;

const FILES = {
  "trial.mjs": TRIAL,
  "node.test.mjs": `
    import assert from "node:assert/strict";
    import { test } from "node:test";
    import { everywhere, EXPECTED, fortnight } from "${HERE}trial.mjs";
    test("a trial is charged after 14 days", async () => assert.deepEqual(await fortnight(), EXPECTED));
    test("wherever it crashes", async () => assert.deepEqual(await everywhere(), { state: "completed", value: "charged u1" }));`,
  "tap.test.mjs": `
    import { test } from "tap";
    import { everywhere, EXPECTED, fortnight } from "${HERE}trial.mjs";
    test("a trial is charged after 14 days", async (t) => t.same(await fortnight(), EXPECTED));
    test("wherever it crashes", async (t) => t.same(await everywhere(), { state: "completed", value: "charged u1" }));`,
  "vitest.test.mjs": `
    import { expect, test } from "vitest";
    import { everywhere, EXPECTED, fortnight } from "${HERE}trial.mjs";
    test("a trial is charged after 14 days", async () => expect(await fortnight()).toEqual(EXPECTED), 60_000);
    test("wherever it crashes", async () => expect(await everywhere()).toEqual({ state: "completed", value: "charged u1" }), 60_000);`,
};

const bin = (name: string, file: string): string =>
  join(dirname(fileURLToPath(import.meta.resolve(`${name}/package.json`))), file);

/** How each is started on its file. */
const RUNNERS: Readonly<Record<string, () => string[]>> = {
  node: () => ["--test", "node.test.mjs"],
  tap: () => [
    join(dirname(fileURLToPath(import.meta.resolve("tap"))), "run.mjs"),
    "--disable-coverage",
    "tap.test.mjs",
  ],
  vitest: () => [bin("vitest", "vitest.mjs"), "run", "--root", ".", "--pool=forks", "vitest.test.mjs"],
};

interface Ran {
  readonly code: number | null;
  readonly output: string;
}

/** A runner that a handle of ours keeps from ending is killed, and has no exit code. */
async function run(args: readonly string[], cwd: string, days: number): Promise<Ran> {
  // Nothing of the runner that this test runs in.
  const own = Object.entries(process.env).filter(
    ([name]) => !/^(TAP|_TAPJS|NODE_OPTIONS|NODE_TEST|NODE_V8)/.test(name),
  );
  const env = { ...Object.fromEntries(own), DATABASE_URL: await server(), DAYS: `${days}` };
  const child = spawn(process.execPath, args, { cwd, env, timeout: 90_000 });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (output += text));
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  return { code, output };
}

for (const [name, args] of Object.entries(RUNNERS)) {
  test(`a test in ${name === "node" ? "node:test" : name} passes, fails where the workflow is wrong, and ends by itself`, async (t) => {
    t.setTimeout(200_000);
    const folder = t.testdir({ ...FILES, "package.json": JSON.stringify({ type: "module" }) });
    const right = await run(args(), folder, 14);
    t.equal(right.code, 0, right.output);
    const wrong = await run(args(), folder, 15);
    t.equal(wrong.code, 1, wrong.output);
    t.match(wrong.output, /suspended/, "it says why");
  });
}

test("nothing in perdure/testing asks for a runner", async (t) => {
  for (const file of await readdir(`${ROOT}lib/testing`)) {
    t.notMatch(await readFile(`${ROOT}lib/testing/${file}`, "utf8"), /from "(vitest|tap|node:test)"|globalThis/, file);
  }
});
