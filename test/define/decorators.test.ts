/** Decorated methods: their names, what `this` is, inheritance, instances, and what is refused. Compilers have a file of their own. */
import { cpSync, symlinkSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { test } from "tap";
import {
  currentRun,
  currentStep,
  durable,
  event,
  named,
  Perdure,
  race,
  runStep,
  schedule,
  start,
  step,
  transaction,
  type Workflow,
  workflow,
} from "../../lib/index.ts";
import { bench } from "../support/engine.ts";
import { reaches, rejection } from "../support/gate.ts";
import { ROOT } from "../support/readme.ts";
import { refusal as refusalOf } from "../support/refusal.ts";

const refusal = (call: () => unknown) => refusalOf(call) as { name: string; code: string; message: string };
const patient = { timeout: "20s" } as const;

/** Applies decorators as `experimentalDecorators` has them applied: the lowest first, with the property's descriptor. */
function legacy(target: object, key: PropertyKey, ...decorators: unknown[]): void {
  let descriptor = Object.getOwnPropertyDescriptor(target, key);
  for (const decorate of decorators.reverse() as ((...args: unknown[]) => PropertyDescriptor | undefined)[]) {
    descriptor = decorate(target, key, descriptor) ?? descriptor;
  }
  if (descriptor) Object.defineProperty(target, key, descriptor);
}

/** What both conventions make of one class. */
interface Counter {
  readonly calls: string[];
  add(by: number): Promise<number>;
  twice(by: number): Promise<number>;
  plain(): number;
}

function counters(): { [convention: string]: new (from: number) => Counter } {
  class TC39 implements Counter {
    readonly calls: string[] = [];
    #at: number;
    constructor(from: number) {
      this.#at = from;
    }
    @step()
    async add(by: number): Promise<number> {
      this.calls.push(currentStep().name);
      this.#at += by;
      return this.#at;
    }
    @workflow()
    async twice(by: number): Promise<number> {
      this.calls.push(currentRun().workflow);
      await this.add(by);
      return this.add(by);
    }
    plain(): number {
      return this.#at;
    }
  }
  class Legacy implements Counter {
    readonly calls: string[] = [];
    #at: number;
    constructor(from: number) {
      this.#at = from;
    }
    async add(by: number): Promise<number> {
      this.calls.push(currentStep().name);
      this.#at += by;
      return this.#at;
    }
    async twice(by: number): Promise<number> {
      this.calls.push(currentRun().workflow);
      await this.add(by);
      return this.add(by);
    }
    plain(): number {
      return this.#at;
    }
  }
  legacy(Legacy.prototype, "add", step());
  legacy(Legacy.prototype, "twice", workflow());
  return { TC39, Legacy };
}

for (const [name, Counter] of Object.entries(counters())) {
  test(`instances of one class keep their state and their names apart: ${name}`, async (t) => {
    const [one, eu, frozen] = [new Counter(0), named("eu", new Counter(10)), new Counter(100)];
    Object.freeze(named("cold", frozen));
    const { perdure } = await bench(t, { workflows: [one, eu, frozen] });
    t.equal(await one.twice(1), 2);
    t.equal(await eu.twice(2), 14);
    t.equal(await frozen.twice(3), 106);
    t.same(one.calls, [`${name}.twice`, `${name}.add`, `${name}.add`]);
    t.same(eu.calls, ["eu.twice", "eu.add", "eu.add"]);
    const run = await perdure.start(durable(frozen.twice).with({ id: "cold" }), 1);
    t.equal(await run.result(patient), 108);
    t.equal(await perdure.get(durable(eu.twice), "cold").result(patient), 108);
    const { runs } = await perdure.list({ workflow: frozen.twice, idPrefix: "cold" });
    t.same(
      runs.map(({ workflow }) => workflow),
      ["cold.twice"],
    );
    const byName = await perdure.start("eu.twice", 1);
    t.equal(await byName.result(patient), 16);
  });

  test(`a method is one value for each instance, and has the method's own name: ${name}`, (t) => {
    const [one, other] = [new Counter(0), new Counter(0)];
    t.equal(one.twice, one.twice);
    t.not(one.twice, other.twice);
    t.equal(durable(one.twice), durable(one.twice));
    t.equal(one.twice.name, "twice");
    t.equal(one.add.length, 1);
    t.same(Object.keys(one), ["calls"], "nothing is added to the instance");
    t.notOk(Object.getOwnPropertyDescriptor(Counter.prototype, "add")!.enumerable);
    t.equal(typeof Counter.prototype.add, "function", "tools that read prototypes find functions");
    t.end();
  });

  test(`a stand-in takes the place of a method on its instance, or on the class: ${name}`, async (t) => {
    const [one, other] = [new Counter(0), named("other", new Counter(0))];
    one.add = async (by) => -by;
    await bench(t, { workflows: [one, other] });
    t.equal(await one.twice(3), -3);
    t.equal(await other.twice(3), 6);
    const kept = Object.getOwnPropertyDescriptor(Counter.prototype, "add")!;
    Counter.prototype.add = async () => 7;
    t.equal(await other.twice(4), 7);
    Object.defineProperty(Counter.prototype, "add", kept);
    t.equal(await other.twice(1), 8);
  });

  test(`a step called outside of a workflow is a plain call, and leaves the name open: ${name}`, async (t) => {
    class Plain extends Counter {
      override async add(by: number): Promise<number> {
        return by;
      }
    }
    t.equal(await new Plain(1).add(5), 5, "an override without a decorator is what it is");
    const one = new Counter(1);
    t.match(
      await rejection(one.add(1)),
      { code: "PERDURE_CONTEXT" },
      "the method itself ran: currentStep() knows no step",
    );
    t.equal(named("late", one), one);
  });

  test(`a method that lost its instance says so: ${name}`, async (t) => {
    const { add, twice } = Counter.prototype;
    new Counter(0);
    t.match(
      refusal(() => void add(1)),
      {
        code: "PERDURE_CONTEXT",
        message: `step "add" of class ${name} was called without its instance; call it as a method of one`,
      },
    );
    t.match(
      refusal(() => durable(twice)),
      {
        message:
          "durable() was given method twice without its instance; read it from one, as in durable(checkout.twice)",
      },
    );
    const { add: own } = new Counter(5);
    t.match(await rejection(own(1)), { code: "PERDURE_CONTEXT" }, "what is read from an instance is bound to it");
  });
}

test("the most derived method wins, and what it calls by super is a part of it", async (t) => {
  const seen: string[] = [];
  class Base {
    @step()
    async reserve(id: string): Promise<string> {
      seen.push(`base ${id}`);
      return `base ${id}`;
    }
    @step()
    async inherited(): Promise<string> {
      return currentStep().name;
    }
    @workflow()
    async process(id: string): Promise<string[]> {
      return [await this.reserve(id), await this.inherited(), currentRun().workflow];
    }
  }
  class Middle extends Base {
    @step()
    override async reserve(id: string): Promise<string> {
      return `middle (${await super.reserve(id)})`;
    }
  }
  class Derived extends Middle {
    @step({ name: "hold" })
    override async reserve(id: string): Promise<string> {
      return `derived (${await super.reserve(id)}) in ${currentStep().name}`;
    }
    @workflow()
    override async process(id: string): Promise<string[]> {
      return ["derived", ...(await super.process(id))];
    }
  }
  const [base, derived, eu] = [new Base(), new Derived(), named("eu", new Derived())];
  const { perdure, sql } = await bench(t, { workflows: [derived, base, eu] });
  const run = await perdure.start(durable(derived.process).with({ id: "d" }), "x");
  t.same(await run.result(patient), [
    "derived",
    "derived (middle (base x)) in hold",
    "Derived.inherited",
    "Derived.process",
  ]);
  t.same(
    (await run.history()).map(({ kind, name }) => [kind, name]),
    [
      ["step", "hold"],
      ["step", "Derived.inherited"],
    ],
  );
  t.same(await base.process("y"), ["base y", "Base.inherited", "Base.process"]);
  t.same((await eu.process("z"))[1], "derived (middle (base z)) in eu.hold", "a given name comes after the instance's");
  t.same(
    (await sql("select distinct workflow from :SCHEMA.runs order by 1")).map(({ workflow }) => workflow),
    ["Base.process", "Derived.process", "eu.process"],
  );
  t.same(seen, ["base x", "base y", "base z"]);
});

test("a method that overrides a decorated one without a decorator is refused, naming both classes", (t) => {
  class Base {
    @step()
    async reserve(): Promise<void> {}
    @workflow()
    async process(): Promise<void> {}
  }
  class Derived extends Base {
    override async reserve(): Promise<void> {}
  }
  t.match(
    refusal(() => new Perdure({ workflows: [new Derived()] })),
    {
      code: "PERDURE_OPTION",
      message:
        "class Derived has a method reserve of its own, not decorated, in place of the step of class Base: it would run again on every replay. Put @step() on it, or give it another name",
    },
  );
  t.end();
});

test("a step that super would run outside of its override is refused, as it would run again on every replay", async (t) => {
  class Base {
    @step()
    async reserve(): Promise<string> {
      return "base";
    }
  }
  class Plain extends Base {
    override async reserve(): Promise<string> {
      return super.reserve();
    }
  }
  class Derived extends Base {
    readonly #plain = new Plain();
    @step()
    override async reserve(): Promise<string> {
      return `derived ${await super.reserve()}`;
    }
    @workflow()
    async run(): Promise<string[]> {
      const refused = [() => this.#plain.reserve(), async () => super.reserve()].map((call) => rejection(call()));
      return [await this.reserve(), ...(await Promise.all(refused)).map(({ message }) => message)];
    }
  }
  const derived = new Derived();
  await bench(t, { workflows: [derived] });
  const said = (name: string) =>
    `super.reserve() of class Base was called in a workflow's own function, where it would run again on every replay; call it from a method reserve of class ${name} that has a @step() of its own`;
  t.same(await derived.run(), ["derived base", said("Plain"), said("Derived")]);
  t.equal(await new Plain().reserve(), "base", "outside of a workflow it is a plain call");
});

test("two of one name are refused, and both places are named", (t) => {
  class Twin {
    @workflow()
    async process(): Promise<void> {}
  }
  class Steps {
    @step()
    async reserve(): Promise<void> {}
  }
  class Given {
    @step({ name: "given" })
    async one(): Promise<void> {}
  }
  class AlsoGiven {
    @step({ name: "given" })
    async two(): Promise<void> {}
  }
  const place = String.raw`\S*decorators\.test\.[jt]s:\d+`;
  const refused = (...workflows: object[]) => refusal(() => new Perdure({ workflows }));
  const said = (text: string, what = "") => ({ code: "PERDURE_DUPLICATE", message: new RegExp(`^${text}${what}`) });
  const one = new Twin();
  t.match(
    refused(one, new Twin()),
    said(
      `two workflows named "Twin.process" have version "1": an instance of class Twin at ${place}, and an instance of class Twin at ${place}; `,
      String.raw`give one of the instances a name of its own: named\("…", instance\)$`,
    ),
  );
  t.match(
    refused(new Steps(), new Steps()),
    said(`two steps are named "Steps.reserve": an instance of class Steps at ${place}`),
  );
  const given = refused(new Given(), new Given());
  t.match(given, said('two steps are named "given": an instance'));
  const [first, second] = [named("eu", new Twin()), named("eu", new Twin())];
  const lines = [...refused(first, second).message.matchAll(/test\.[jt]s:(\d+)/g)].map(([, line]) => line);
  t.equal(lines.length, 2, "where they were named");
  const fn = workflow("Twin.process", async () => {});
  t.match(
    refused(one, fn),
    said(
      `two workflows named "Twin.process" have version "1": an instance of class Twin at ${place}, and a function at ${place}`,
    ),
  );
  t.match(
    refused(fn, one),
    said(`two workflows named "Twin.process" have version "1": a function at ${place}, and an instance`),
  );
  class Both {
    @workflow({ name: "both" })
    async one(): Promise<void> {}
    @workflow({ name: "both" })
    async two(): Promise<void> {}
  }
  t.match(
    refused(new Both()),
    said(
      `two workflows named "both" have version "1": an instance of class Both at ${place}, and an instance of class Both at ${place}; give one another name or version$`,
    ),
  );
  t.doesNotThrow(() => new Perdure({ workflows: [one, one, durable(one.process), named("us", new Twin()), first] }));
  t.doesNotThrow(
    () => new Perdure({ workflows: [new Given(), new AlsoGiven(), new Steps(), named("b", new Steps())] }),
  );
  t.end();
});

test("a name is given once, and before the first durable use", (t) => {
  class Service {
    @workflow()
    async run(): Promise<void> {}
  }
  const one = named("eu", new Service());
  t.equal(named("eu", one), one, "the same again");
  t.match(
    refusal(() => named("us", one)),
    { code: "PERDURE_STATE", message: /^named\("us"\): this instance of Service has the name "eu", given at \S+:\d+$/ },
  );
  const used = new Service();
  schedule("nightly", { every: "1h" }, durable(used.run));
  t.match(
    refusal(() => named("eu", used)),
    {
      code: "PERDURE_STATE",
      message: 'named("eu"): this instance of Service was used as "Service" before; name it where you make it',
    },
  );
  t.match(
    refusal(() => named("", new Service())),
    { code: "PERDURE_NAME" },
  );
  t.match(
    refusal(
      () =>
        named("x".repeat(255), new Service()) && new Perdure({ workflows: [named("x".repeat(255), new Service())] }),
    ),
    {
      code: "PERDURE_NAME",
    },
  );
  for (const wrong of [{}, [], new Date(), null, undefined, 1, Service, () => {}] as object[]) {
    t.match(
      refusal(() => named("eu", wrong)),
      {
        code: "PERDURE_OPTION",
        message:
          /^named\("eu"\): .* has no method that is decorated with @workflow\(\), @step\(\) or @transaction\(\)$/,
      },
    );
  }
  const anonymous = new (class {
    @workflow()
    async run(): Promise<void> {}
  })();
  Object.defineProperty(anonymous.constructor, "name", { value: "" });
  t.match(
    refusal(() => new Perdure({ workflows: [anonymous] })),
    { code: "PERDURE_NAME", message: /method run belongs to a class without a name/ },
  );
  t.end();
});

test("what is no workflow and no such instance is refused, with what to pass", (t) => {
  class Service {
    @workflow()
    async run(): Promise<void> {}
    @step()
    async reserve(): Promise<void> {}
  }
  class Bare {
    async run(): Promise<void> {}
  }
  const refused = (value: unknown) => refusal(() => new Perdure({ workflows: [value as object] })).message;
  t.equal(refused(Service), "workflows of new Perdure() holds class Service; pass an instance of it: new Service(…)");
  t.equal(
    refused(new Bare()),
    "workflows of new Perdure(): an instance of Bare has no method that is decorated with @workflow(), @step() or @transaction()",
  );
  t.match(refused({ run: 1 }), /^workflows of new Perdure\(\): \{ run: 1 \} has no method/);
  const service = new Service();
  t.match(refused(service.reserve), /which workflow\(\) did not make/);
  const wrong = (method: unknown) => refusal(() => durable(method as () => Promise<void>)).message;
  t.equal(
    wrong(service.reserve),
    "durable() needs a workflow, and method reserve is a step; call it in a workflow, as it stands",
  );
  t.match(
    wrong(new Bare().run),
    /^durable\(\) needs a method decorated with @workflow\(\), read from its instance, .*; it was given \[AsyncFunction: run\]$/,
  );
  t.match(wrong(undefined), /it was given undefined$/);
  const fn = workflow("fn", async () => {});
  t.equal(durable(fn), fn, "a workflow stays what it is");
  t.end();
});

test("an instance that is not registered is not mistaken for one that is", async (t) => {
  class Service {
    readonly where: string;
    constructor(where: string) {
      this.where = where;
    }
    @workflow()
    async run(): Promise<string> {
      return this.where;
    }
  }
  class Unknown {
    @workflow()
    async run(): Promise<void> {}
  }
  const [known, stranger] = [new Service("known"), new Service("stranger")];
  const called = workflow("called", async () => (await rejection((async () => stranger.run())())).message);
  const started = workflow(
    "started",
    async () => (await rejection((async () => start(durable(stranger.run)))())).message,
  );
  const { perdure } = await bench(t, { workflows: [known, called, started] });
  const other =
    /^workflow "Service.run" belongs to another instance of Service than the one that is registered; register this one too, with a name: named\("…", instance\)$/;
  t.match(await rejection(stranger.run()), {
    code: "PERDURE_STATE",
    message:
      'workflow "Service.run" was called outside a workflow, but this instance of Service is registered in no launched engine; add it to `workflows` of new Perdure() and launch that',
  });
  t.match(await rejection(perdure.start(durable(stranger.run))), { code: "PERDURE_UNKNOWN_WORKFLOW", message: other });
  t.match(await called(), other);
  t.match(await started(), other);
  t.match(await rejection(perdure.schedules.put(schedule("s", { every: "1h" }, durable(stranger.run)))), {
    message: other,
  });
  t.match(await rejection(perdure.start(durable(new Unknown().run))), {
    code: "PERDURE_UNKNOWN_WORKFLOW",
    message: /not registered in this engine/,
  });
  t.equal(await known.run(), "known");
});

test("inside a step, another durable method is refused as a function is", async (t) => {
  class Service {
    @step()
    async outer(): Promise<string> {
      return this.inner();
    }
    @step()
    async inner(): Promise<string> {
      return "inner";
    }
    @workflow()
    async child(): Promise<void> {}
    @step()
    async starts(): Promise<void> {
      await this.child();
    }
    @workflow()
    async run(): Promise<string[]> {
      const refused = [this.outer, this.starts].map((method) => rejection(method() as Promise<unknown>));
      return (await Promise.all(refused)).map(({ message }) => message);
    }
  }
  const service = named("shop", new Service());
  await bench(t, { workflows: [service] });
  const [step_, child] = await service.run();
  t.match(step_, /^step "shop.inner" cannot be used inside step "shop.outer" of run/);
  t.match(child, /^workflow "shop.child" cannot be used inside step "shop.starts" of run/);
});

test("a transaction has its client in currentStep(), inside a workflow and outside of one", async (t) => {
  class Accounts {
    #table = "";
    at(schema: string): void {
      this.#table = `"${schema}".account`;
    }
    @transaction()
    async deposit(cents: number): Promise<number> {
      const { tx, attempt, name } = currentStep();
      t.ok(attempt === 1 && name);
      await tx!.query(`insert into ${this.#table} values ($1)`, [cents]);
      const { rows } = await tx!.query(`select sum(cents)::int as sum from ${this.#table}`);
      return rows[0].sum;
    }
    @transaction()
    async fail(): Promise<never> {
      await currentStep().tx!.query(`insert into ${this.#table} values (1000)`);
      throw new Error("no");
    }
    @workflow()
    async twice(cents: number): Promise<number> {
      await this.deposit(cents);
      await this.fail().catch(() => {});
      return this.deposit(cents);
    }
  }
  const accounts = new Accounts();
  const { schema, sql } = await bench(t, { workflows: [accounts] });
  accounts.at(schema);
  await sql("create table :SCHEMA.account (cents int)");
  t.equal(await accounts.deposit(5), 5, "outside");
  t.match(await rejection(accounts.fail()), { message: "no" });
  const plain = transaction("plain", async (tx) => currentStep().tx === tx && currentStep().idempotencyKey.length > 0);
  t.ok(await plain(), "a function's too");
  t.throws(() => currentStep(), "and nowhere else");
  t.equal(await accounts.twice(10), 25);
});

test("a method with the type of a workflow is raced, scheduled, started with options and validated", async (t) => {
  const even = {
    "~standard": {
      version: 1 as const,
      vendor: "test",
      validate: (value: unknown) =>
        (value as number) % 2 === 0 ? { value: (value as number) * 10 } : { issues: [{ message: "odd" }] },
    },
  };
  class Jobs {
    @workflow({ name: "tidy", input: even, queue: "jobs" })
    async run(n: number): Promise<number> {
      return n;
    }
    @workflow({ version: "2" })
    async all(): Promise<unknown[]> {
      const child = await start(durable(this.run).with({ tags: ["child"] }), 2);
      const won = await race({ child, late: "1h" });
      return [won.value, await this.run(4), await runStep("inline", () => 3)];
    }
  }
  const jobs = new Jobs();
  const nightly = schedule("nightly", { cron: "0 2 * * *" }, durable(jobs.run), 6);
  const { perdure } = await bench(t, { schedules: [nightly], workflows: [jobs], application: "deco" });
  t.same(await jobs.all(), [20, 40, 3]);
  t.equal(await (await perdure.schedules.trigger("nightly")).result(patient), 60);
  const run = await perdure.start(durable(jobs.run).with({ id: "job", priority: 3 }), 8);
  t.equal(await run.result(patient), 80);
  t.match(await run.status(), { workflow: "tidy", version: "1", queue: "jobs", priority: 3 });
  t.match(await rejection(jobs.run(1)), { code: "PERDURE_INVALID", message: /odd/ });
  t.equal(
    await (await perdure.start(jobs.run as unknown as Workflow<[n: number], number>, 10)).result(patient),
    100,
    "without types, the method itself",
  );
});

test("an instance may come from no constructor, be sealed by its base, or stand behind a Proxy", async (t) => {
  class Sealed {
    readonly fields: string[] = ["base"];
    constructor() {
      Object.freeze(this);
    }
  }
  class Service extends Sealed {
    @step()
    async here(): Promise<string> {
      return this.fields.join();
    }
    @workflow()
    async run(): Promise<string> {
      return `${await this.here()} ${currentRun().workflow}`;
    }
  }
  class Bare {
    at = "bare";
    @workflow()
    async run(): Promise<string> {
      return `${this.at} ${currentRun().workflow}`;
    }
  }
  const made = Object.assign(Object.create(Bare.prototype) as Bare, { at: "made" });
  const proxy = named("proxy", new Proxy(new Service(), {}));
  const service = new Service();
  await bench(t, { workflows: [service, made, proxy] });
  t.equal(await service.run(), "base Service.run");
  t.equal(await made.run(), "made Bare.run");
  t.equal(durable(made.run), made.run);
  t.equal(await proxy.run(), "base proxy.run");
});

test("on top of another decorator it takes what that made, and below one that replaces the method it is refused", async (t) => {
  const shout = (method: (...args: any[]) => Promise<string>, _context: unknown) =>
    async function (this: unknown, ...args: unknown[]): Promise<string> {
      return (await Reflect.apply(method, this, args)).toUpperCase();
    };
  class Fine {
    @step()
    @shout
    async say(text: string): Promise<string> {
      return `${currentStep().name} ${text}`;
    }
    @workflow()
    async run(): Promise<string> {
      return this.say("hello");
    }
  }
  class Wrong {
    @shout
    @step()
    async say(): Promise<string> {
      return "";
    }
  }
  const fine = new Fine();
  await bench(t, { workflows: [fine] });
  t.equal(await fine.run(), "FINE.SAY HELLO");
  t.match(
    refusal(() => new Wrong()),
    {
      code: "PERDURE_OPTION",
      message:
        /^@step\(\) on Wrong\.say at \S+:\d+ stands below another decorator, which replaced the method; put it on top$/,
    },
  );
});

test("a decorator on anything but an async method of instances is refused, and says what it stands on", (t) => {
  const dec = step as unknown as (options?: object) => (...args: any[]) => any;
  const wf = workflow as unknown as (options?: object) => (...args: any[]) => any;
  const symbol = Symbol("s");
  const cases: [call: () => unknown, text: string | RegExp][] = [
    [
      () =>
        class {
          @dec() field = 1;
        },
      '@step() cannot stand on field "field"; it decorates async methods of instances',
    ],
    [
      () =>
        class {
          @dec() get at() {
            return 1;
          }
        },
      '@step() cannot stand on getter "at"; it decorates async methods of instances',
    ],
    [
      () =>
        class {
          @dec() set at(_: number) {}
        },
      '@step() cannot stand on setter "at"; it decorates async methods of instances',
    ],
    [
      () =>
        class {
          @dec() accessor at = 1;
        },
      '@step() cannot stand on accessor "at"; it decorates async methods of instances',
    ],
    [
      () =>
        class {
          @wf() static async run() {}
          field = 1;
        },
      '@workflow() cannot stand on static method "run"; it decorates async methods of instances: for a function, workflow("name", fn) will do',
    ],
    [
      () =>
        class {
          @dec() async #run() {
            await this.#run();
          }
        },
      '@step() cannot stand on private method "#run"; it decorates async methods of instances: in place of #, TypeScript\'s `private` will do',
    ],
    [
      () =>
        class {
          @dec() async [symbol]() {}
        },
      "@step() cannot stand on method Symbol(s); it decorates async methods of instances, which need a name that is no symbol",
    ],
    [
      () =>
        class {
          @dec() async *run() {}
        },
      '@step() cannot stand on generator "run"; it decorates async methods of instances',
    ],
    [
      () => {
        @dec()
        class Service {}
        return Service;
      },
      '@step() cannot stand on class "Service"; it decorates async methods of instances',
    ],
  ];
  class Service {
    async run(): Promise<void> {}
    *generate(): Generator<number> {}
    static async make(): Promise<void> {}
    get at(): number {
      return 1;
    }
    async [symbol](): Promise<void> {}
  }
  const old: [target: object, key: PropertyKey | undefined, more: unknown[], text: string][] = [
    [Service.prototype, "field", [undefined], 'field "field" of class Service'],
    [
      Service.prototype,
      "at",
      [Object.getOwnPropertyDescriptor(Service.prototype, "at")],
      'accessor "at" of class Service',
    ],
    [
      Service.prototype,
      "generate",
      [Object.getOwnPropertyDescriptor(Service.prototype, "generate")],
      'generator "generate" of class Service',
    ],
    [Service, "make", [Object.getOwnPropertyDescriptor(Service, "make")], 'static method "make" of class Service'],
    [
      Service.prototype,
      symbol,
      [Object.getOwnPropertyDescriptor(Service.prototype, symbol)],
      "method Symbol(s) of class Service",
    ],
    [Service.prototype, "run", [0], 'parameter of method "run" of class Service'],
    [Service, undefined, [], "class of class Service"],
  ];
  for (const [call, text] of cases)
    t.strictSame(refusal(call), { name: "PerdureError", code: "PERDURE_OPTION", message: text });
  for (const [target, key, more, text] of old) {
    const { code, message } = refusal(() => dec()(target, key, ...more));
    t.equal(code, "PERDURE_OPTION");
    t.ok(message.startsWith(`@step() cannot stand on ${text}; it decorates async methods of instances`), message);
  }
  t.end();
});

test("options of a decorator are checked where it stands, and forgotten parentheses are noticed", (t) => {
  const loose = { step, transaction, workflow } as unknown as Record<string, (...args: any[]) => any>;
  for (const [name, make] of Object.entries(loose)) {
    const said = (...args: unknown[]) => refusal(() => make!(...args)).message;
    t.equal(said({ retires: 3 }), `unknown option "retires" of @${name}(); did you mean "retry"?`);
    t.match(said([]), `options of @${name}() must be a plain object, not []`);
    const bare = `${name}() needs a name and a function: ${name}("name", fn); as a decorator it has parentheses: @${name}()`;
    t.equal(
      said(async () => {}),
      bare,
    );
    t.equal(
      said(async () => {}, { kind: "method", name: "run", addInitializer: () => {} }),
      bare,
    );
    t.equal(said({}, "run", { value: async () => {} }), bare);
    t.match(said("run"), new RegExp(`^${name} "run" needs a function, not undefined`));
    t.match(said({ name: "run" }, undefined), new RegExp(`^${name} "run" needs a function, not undefined`));
    const stood = (options: object) =>
      refusal(() =>
        (make!(options) as (...args: unknown[]) => void)({}, "run", { value: async () => {}, configurable: true }),
      );
    t.match(stood({ timeout: "soon" }), { code: "PERDURE_OPTION", message: new RegExp(`timeout of ${name} "run"`) });
    t.match(stood({ name: " " }), { code: "PERDURE_NAME" });
    t.equal(stood({ name: undefined }), undefined);
  }
  t.end();
});

test("a class that was decorated by another copy of the package is served all the same", async (t) => {
  const folder = t.testdir({ "package.json": '{ "type": "module" }' });
  cpSync(`${ROOT}dist/lib`, `${folder}/lib`, { recursive: true });
  symlinkSync(`${ROOT}node_modules`, `${folder}/node_modules`, "dir");
  const copy: typeof import("../../lib/index.ts") = await import(pathToFileURL(`${folder}/lib/index.js`).href);
  t.not(copy.step, step);
  class Service {
    @copy.step()
    async here(): Promise<string> {
      return copy.currentStep().name;
    }
    @copy.workflow()
    async run(): Promise<string> {
      return `${await this.here()} in ${currentRun().workflow}`;
    }
  }
  const [one, eu] = [new Service(), named("eu", new Service())];
  const { perdure } = await bench(t, { workflows: [one, eu] });
  t.equal(await one.run(), "Service.here in Service.run");
  t.equal(await (await perdure.start(durable(eu.run))).result(patient), "eu.here in eu.run");
  t.match(
    refusal(() => copy.named("us", eu)),
    { code: "PERDURE_STATE" },
  );
});

test("an event that is awaited in a method reaches the method of that instance", async (t) => {
  const go = event<string>("go");
  class Service {
    readonly #by: string;
    constructor(by: string) {
      this.#by = by;
    }
    @workflow()
    async run(): Promise<string> {
      return `${(await go.wait()).data} ${this.#by}`;
    }
  }
  const { perdure, another } = await bench(t, { workflows: [named("eu", new Service("first"))] });
  const run = await perdure.start("eu.run");
  const id = run.id;
  await reaches(run, "suspended");
  await perdure.shutdown();
  const eu = named("eu", new Service("second"));
  const second = await another({ workflows: [new Service("other"), eu] });
  await second.send(id, go, "hello");
  t.equal(await second.get(durable(eu.run), id).result(patient), "hello second");
});
