/** What a step returns may begin only when it is awaited, as a query builder does: it runs where the step runs, in each kind of step. */
import { AsyncLocalStorage } from "node:async_hooks";
import { test } from "tap";
import { currentStep, type PerdureError, step, transaction, uuid, workflow } from "../../lib/index.ts";
import { bench } from "../support/engine.ts";

const tenant = new AsyncLocalStorage<string>();

/** Tells where it was begun. */
class Query<T> implements PromiseLike<T> {
  readonly #run: () => T;

  constructor(run: () => T) {
    this.#run = run;
  }

  // biome-ignore lint/suspicious/noThenProperty: a query builder has it
  then<A = T, B = never>(
    resolve?: ((value: T) => A | PromiseLike<A>) | null,
    reject?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): PromiseLike<A | B> {
    return new Promise<T>((done) => done(this.#run())).then(resolve, reject);
  }
}

const here = (): (string | undefined)[] => [currentStep().name, tenant.getStore()];

test("a query builder that a step returns runs in the step, and in the caller's async context", async (t) => {
  const plain = step("plain", () => new Query(here));
  const timed = step({ name: "timed", timeout: "1m" }, () => new Query(here));
  const inTransaction = transaction("tx", () => new Query(here));
  const w = workflow("w", async () =>
    tenant.run("acme", async () => {
      const first = await plain();
      // What was written before is being committed: these begin later, from elsewhere.
      return [first, ...(await Promise.all([plain(), timed(), inTransaction()]))];
    }),
  );
  const { perdure } = await bench(t, { workflows: [w] });
  t.strictSame(await (await perdure.start(w)).result(), [
    ["plain", "acme"],
    ["plain", "acme"],
    ["timed", "acme"],
    ["tx", "acme"],
  ]);
  t.strictSame(await tenant.run("plainly", async () => inTransaction()), ["tx", "plainly"], "outside a workflow");
});

test("a query builder that a step returns does nothing in the body's name", async (t) => {
  const draws = step({ name: "draws", retry: { type: "never" } }, () => new Query(() => uuid()));
  const w = workflow("w", async () =>
    draws().then(
      () => "drew",
      (error: unknown) => (error as PerdureError).code,
    ),
  );
  const { perdure } = await bench(t, { workflows: [w] });
  t.equal(await (await perdure.start(w)).result(), "PERDURE_CONTEXT");
});

test("a step with a timeout awaits what its function returns as one without", async (t) => {
  // biome-ignore lint/suspicious/noThenProperty: a tracer has replaced it
  const traced = () => Object.assign(Promise.resolve(1), { then: () => undefined });
  const timed = step({ name: "timed", timeout: 2_000, retry: { type: "never" } }, traced);
  const w = workflow("w", async () => timed());
  const { perdure } = await bench(t, { workflows: [w] });
  t.equal(await (await perdure.start(w)).result(), 1);
});

test("a handle is a plain object: its methods may be taken off, copied and replaced", async (t) => {
  const w = workflow("w", async () => 1);
  const { perdure } = await bench(t, { workflows: [w] });
  const run = await perdure.start(w);
  const { result } = run;
  const copy = { ...run };
  run.result = async () => 2;
  t.equal(await run.result(), 2);
  t.equal(await result(), 1);
  t.equal(await copy.result(), 1);
  t.equal(await new Proxy(copy, {}).result(), 1);
  t.equal(await perdure.get(run.id).result(), 1, "of no other handle's");
});
