/** The likeliest mistakes, as the compiler tells of them: in the reader's words, at the place that is wrong, under both kinds of decorators. */
import { writeFileSync } from "node:fs";
import { type Test, test } from "tap";
import { compile, ROOT } from "./support/readme.ts";

const BEFORE = `
import { durable, event, Perdure, race, schedule, sleep, start, step, transaction, workflow } from "perdure";
const processOrder = workflow("process-order", async (orderId: string) => orderId.length);
const charge = step("charge", async (id: string, cents: number) => cents + id.length);
const debit = transaction("debit", async (tx, cents: number) => cents);
const paid = event<{ amount: number }>("paid");
declare const perdure: Perdure;
class Checkout {
  @workflow() async process(id: string): Promise<string> { return id; }
  sync(): number { return 1; }
}
const checkout = new Checkout();
void [durable, race, sleep, start, debit, paid, perdure, checkout, schedule, charge];
`;

/** Each mistake, and what the compiler is to say of it. */
const MISTAKES: readonly (readonly [code: string, says: RegExp])[] = [
  [
    'void perdure.start(processOrder.with({ id: "a" }), 42);',
    /'number' is not assignable to parameter of type 'string'/,
  ],
  ["void perdure.start(processOrder);", /the arguments after the workflow are not as many as its own/],
  ['void perdure.start(processOrder, "a", "b");', /the arguments after the workflow are not as many as its own/],
  ['void perdure.start(charge, "a", 1);', /a step is called in a workflow; start\(\) needs a workflow/],
  ['void perdure.start(checkout.process, "a");', /or durable\(instance\.method\) of a decorated method/],
  ['void perdure.start(async (id: string) => id, "a");', /start\(\) needs a workflow made by workflow\(\)/],
  [
    'void perdure.start(processOrder("a"));',
    /this call runs already; pass the workflow itself, and its arguments after it/,
  ],
  ['void start(charge, "a", 1);', /'"a step"' is not assignable to type .*"a workflow"/],
  [
    'schedule("n", { every: "1h" }, processOrder.with({ id: "a" }), "o");',
    /"a copy of a workflow that names one particular run, by id, delay or startAt"' is not assignable to type '"a workflow"'/,
  ],
  [
    'new Perdure({ workflows: [processOrder.with({ id: "a" })] });',
    /"a copy of a workflow that names one particular run, by id, delay or startAt"' is not assignable to type '"a workflow"'/,
  ],
  ["new Perdure({ workflows: [charge] });", /'"a step"' is not assignable to type '"a workflow"'/],
  ["new Perdure({ workflows: [Checkout] });", /'typeof Checkout' is not assignable to type .*ServiceInstance/],
  ["new Perdure({ workflow: [processOrder] });", /Did you mean to write 'workflows'\?/],
  ["void race({});", /race\(\) needs events, children or durations, each with a name/],
  ['void race({ late: "soon" });', /'"soon"' is not assignable to type 'Racer'/],
  ['void perdure.send("a", paid, { amout: 1 });', /Did you mean to write 'amount'\?/],
  ['void perdure.send("a", "paid", { amount: 1 });', /'string' is not assignable to parameter of type 'EventLike/],
  ['step({ name: "x", retires: 3 }, async () => {});', /'retires' does not exist in type 'StepOptions/],
  ['step({ name: "x", retry: { type: "fixed", maxAttempts: 3 } }, async () => {});', /Property 'delay' is missing/],
  ["step(async (id: string) => id);", /a function needs a name: step\(\\"name\\", fn\)/],
  ["workflow(async (id: string) => id);", /a function needs a name: workflow\(\\"name\\", fn\)/],
  ['void sleep("5 minuts");', /'"5 minuts"' is not assignable to parameter of type 'Duration'/],
  ["void debit({}, 5);", /Expected 1 arguments, but got 2/],
  ["void durable(checkout.sync);", /'number' is not assignable to type 'Promise<unknown>'/],
  ["class A { @step() sync(): number { return 1; } }", /'number' is not assignable to type 'Promise<unknown>'/],
  [
    "class B { @step() async *all(): AsyncGenerator<number> { yield 1; } }",
    /'AsyncGenerator<number.*' is missing .* 'Promise<unknown>'/,
  ],
  [
    "class C { @workflow() static async run(): Promise<void> {} }",
    /(Types of property 'static' are incompatible|Types of property 'prototype' are incompatible)/,
  ],
  ["class D { @workflow() field = 1; }", /is not assignable to parameter of type 'AsyncMethod'/],
  [
    "class E { @workflow() get at(): number { return 1; } }",
    /is not assignable to (parameter of type 'AsyncMethod'|type 'AsyncMethod')/,
  ],
  [
    "class F { @workflow async run(): Promise<void> {} }",
    /(a decorator has parentheses: @workflow\(\)|Unable to resolve signature)/,
  ],
  [
    "class G { @workflow({ retires: 1 }) async run(): Promise<void> {} }",
    /'retires' does not exist in type 'WorkflowMethodOptions'/,
  ],
  [
    "class H { @step() async [Symbol.asyncDispose](): Promise<void> {} }",
    /not assignable to (type|parameter of type) 'string'/,
  ],
];

async function said(t: Test, options: object): Promise<Map<number, string>> {
  const folder = t.testdir({});
  const text = [BEFORE.trim(), ...MISTAKES.map(([code]) => code), "export {};"].join("\n");
  writeFileSync(`${folder}/app.ts`, text);
  const compilerOptions = {
    ...{ strict: true, target: "es2022", module: "nodenext", noEmit: true, lib: ["es2023", "esnext.disposable"] },
    ...{
      typeRoots: [`${ROOT}node_modules/@types`],
      types: ["node"],
      paths: { perdure: [`${ROOT}dist/lib/index.d.ts`] },
    },
    ...options,
  };
  writeFileSync(`${folder}/tsconfig.json`, JSON.stringify({ compilerOptions, include: ["app.ts"] }));
  const output = await compile(folder).then(
    () => "",
    (error: Error) => error.message,
  );
  const lines = new Map<number, string>();
  for (const one of output.split(/^(?=\S)/m)) {
    const line = Number(/app\.ts\((\d+),/.exec(one)?.[1]);
    lines.set(line, (lines.get(line) ?? "") + one);
  }
  return lines;
}

for (const [convention, options] of Object.entries({
  TC39: {},
  experimentalDecorators: { experimentalDecorators: true },
})) {
  test(`a compiler says in the reader's words what is wrong, and of what is right it says nothing: ${convention}`, async (t) => {
    const lines = await said(t, options);
    const first = BEFORE.trim().split("\n").length + 1;
    for (const [no, [code, says]] of MISTAKES.entries()) {
      t.match(lines.get(first + no) ?? "nothing", says, code);
      lines.delete(first + no);
    }
    t.same([...lines], [], "nothing else");
  });
}
