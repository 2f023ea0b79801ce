/** What the consumers run and compile: the README's first program, and one that touches every entry point's types. */
import { readFileSync } from "node:fs";
import { transformSync } from "esbuild";
import { chapters, ROOT } from "../support/readme.ts";

/** The first program of the README as it stands, only less patient. */
export const FIRST_TS: string = chapters()[0]!
  .blocks.find(({ language }) => language === "ts")!
  .text.replace("pause(5000)", "pause(50)");

/** The same without its type annotations. */
export const FIRST_JS: string = transformSync(FIRST_TS, { loader: "ts", format: "esm" }).code;

export const FIRST_OUTPUT = /^order-42 created\norder-42 reserving … kill -9 \d+\norder-42 fulfilled\npaid 99\n$/;

/** As a CommonJS application has it. */
export const HELLO_CJS = `const { Perdure, workflow } = require("perdure");
for (const entry of ["adapters", "testing", "codec", "aiki"]) require("perdure/" + entry);
const hello = workflow("hello", async (name) => "hello " + name);
async function main() {
  const perdure = new Perdure({ workflows: [hello] });
  await perdure.launch();
  console.log(await (await perdure.start(hello, "Ada")).result());
  await perdure.shutdown();
}
main();
`;

/** A service to be bundled: its run waits for a word from outside. */
export const SERVICE = `import { event, Perdure, workflow } from "perdure";
const go = event("go");
const hello = workflow("hello", async (name) => "hello " + name + (await go.wait()).data);
async function main() {
  const perdure = new Perdure({ workflows: [hello] });
  await perdure.launch();
  const run = await perdure.start(hello.with({ id: "hello" }), "Ada");
  console.log(await run.result({ timeout: "1m" }));
  await perdure.shutdown();
}
main();
`;

const ANY_APP = `import { event, Perdure, type RunHandle, schedule, sleep, step, workflow } from "perdure";
import * as adapters from "perdure/adapters";
import * as aiki from "perdure/aiki";
import * as codec from "perdure/codec";
import * as testing from "perdure/testing";
const add = step("add", async (a: number, b: number) => a + b);
const paid = event<{ amount: number }>("paid");
const sum = workflow("sum", async (n: number) => {
  const got = await paid.wait({ timeout: "1h" });
  await sleep("1s");
  return { sum: await add(n, got ? got.data.amount : 0) };
});
export const perdure = new Perdure({
  workflows: [sum],
  schedules: [schedule("hourly", { every: "1h" }, sum, 1)],
  shutdownOn: ["SIGTERM"],
});
export const run = async (): Promise<{ sum: number }> => {
  const handle: RunHandle<{ sum: number }> = await perdure.start(sum.with({ id: "x" }), 1);
  return handle.result({ timeout: "1m" });
};
// @ts-expect-error a number is wanted
export const wrong = () => perdure.start(sum, "one");
export const all = [adapters, aiki, codec, testing];
`;

/** The types of every entry point, in an application that has no types of the driver. */
export const TYPED_APP: string = ANY_APP;

/** … and in one that has them. */
export const TYPED_APP_WITH_PG: string = `${ANY_APP}
import { transaction } from "perdure";
import pg from "pg";
export const pooled = new Perdure({ database: new pg.Pool({ max: 5 }) });
export const count = transaction("count", async (tx: pg.PoolClient) => (await tx.query<{ n: number }>("select 1 as n")).rows[0]?.n);
`;

export function tsconfig(module: string, moduleResolution: string, file = "app.ts", more: object = {}): string {
  const strict = { strict: true, exactOptionalPropertyTypes: true, skipLibCheck: false, target: "es2022" };
  return JSON.stringify({ compilerOptions: { ...strict, module, moduleResolution, ...more }, files: [file] });
}

export const exampleText = (name: string): string => readFileSync(`${ROOT}examples/${name}.ts`, "utf8");

/** What the last lines of an example promise. */
export const promised = (name: string): string =>
  exampleText(name)
    .split("\n// Output:\n")[1]!
    .replace(/^\/\/ ?/gm, "");
