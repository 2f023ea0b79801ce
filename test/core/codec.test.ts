/** Values and errors through the codec: what comes back equal, what is refused with which words, and what hostile text cannot do. */

import assert from "node:assert/strict";
import { runInNewContext } from "node:vm";
import { SuperJSON } from "superjson";
import t from "tap";
import { ValueCodec } from "../../lib/core/codec.ts";
import {
  NonRetryableError,
  PerdureError,
  RunCancelledError,
  RunFailedError,
  TimeoutError,
} from "../../lib/core/errors.ts";
import { event } from "../../lib/define/waits.ts";
import { ownKeys, VALUES } from "../support/values.ts";

const codec = new ValueCodec();

function roundTrip(value: unknown, through = codec): any {
  return through.decode(through.encode(value, "value"), "value");
}

function thrownBy(run: () => unknown): any {
  try {
    run();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}

function nested(levels: number, wrap: (inner: unknown) => unknown): unknown {
  let value: unknown = "core";
  for (let level = 0; level < levels; level++) value = wrap(value);
  return value;
}

class PaymentDeclined extends Error {
  readonly amount: number;
  constructor(amount: number) {
    super(`declined: ${amount}`);
    if (amount < 0) throw new Error("the constructor ran on revival");
    this.name = "PaymentDeclined";
    this.amount = amount;
  }
}

class CardDeclined extends PaymentDeclined {}

await t.test("what is accepted comes back deeply equal and of the same types", async (t) => {
  for (const [name, value] of Object.entries(VALUES)) {
    for (const wrapped of [value, { a: value }, [value, value], new Map([["k", value]]), new Set([value])]) {
      const text = codec.encode(wrapped, "value");
      assert.equal(Buffer.from(text).toString(), text, name);
      assert.ok(!text.includes("\0"), name);
      const back = codec.decode(text, "value");
      assert.deepStrictEqual(back, wrapped, name);
      assert.equal(Object.prototype.toString.call(back), Object.prototype.toString.call(wrapped));
      assert.equal(codec.encode(back, "value"), text, `${name}: encodes to the same text again`);
    }
  }
  t.equal(({} as any).polluted, undefined);
  t.pass(`${Object.keys(VALUES).length} values, five ways each`);
});

await t.test("identity is kept: shared references, cycles, cycles through Map, Set and errors", async (t) => {
  const part = { n: 1 };
  const back = roundTrip({ a: part, b: part, m: new Map<unknown, unknown>([[part, [part]]]), s: new Set([part, 2]) });
  t.equal(back.a, back.b);
  t.equal([...back.m.keys()][0], back.a);
  t.equal(back.m.get(back.a)[0], back.a);
  t.same([...back.s], [back.a, 2]);
  const loop: any = { map: new Map(), set: new Set(), list: [] };
  loop.map.set(loop, loop.set).set("list", loop.list);
  loop.set.add(loop).add(loop.map);
  loop.list.push(loop.list, loop, Object.defineProperty({}, "__proto__", { value: loop, enumerable: true }));
  const again = roundTrip(loop);
  assert.deepStrictEqual(Object.getOwnPropertyDescriptor(again.list[2], "__proto__")?.value, again);
  t.equal(again.map.get(again), again.set);
  t.ok(again.set.has(again) && again.set.has(again.map));
  t.equal(again.list[0], again.list);
  const first: any = new Error("first");
  first.cause = Object.assign(new Error("second", { cause: first }), { owner: first });
  const error = roundTrip(first);
  t.equal(error.cause.cause, error);
  t.equal(error.cause.owner, error);
  const date = new Date(1);
  t.equal(roundTrip([date, date])[1].getTime(), 1);
});

await t.test("a shared value that would unfold without end is stored once", async (t) => {
  let value: unknown = ["leaf"];
  for (let level = 0; level < 60; level++) value = [value, value];
  t.ok(codec.encode(value, "value").length < 20_000);
  let back = roundTrip(value);
  let levels = 0;
  for (; back.length === 2 && back[0] === back[1]; back = back[0]) levels++;
  t.equal(levels, 60);
});

await t.test("objects without a prototype and of another realm come back as plain ones", async () => {
  assert.deepStrictEqual(roundTrip(Object.assign(Object.create(null), { a: 1 })), { a: 1 });
  const foreign = runInNewContext(
    "({ o: {}, a: [1], d: new Date(1), m: new Map([[1, 2]]), e: new TypeError('t'), r: /x/g })",
  );
  const back = roundTrip(foreign);
  assert.deepStrictEqual(back.d, new Date(1));
  assert.deepStrictEqual(back.m, new Map([[1, 2]]));
  assert.ok(back.e instanceof TypeError && back.r instanceof RegExp && Array.isArray(back.a));
});

await t.test("an accessor and a Proxy are read once", async (t) => {
  let reads = 0;
  const value = {
    get a() {
      return ++reads;
    },
    b: new Proxy({ c: 1 }, { get: (target, key) => (key === "c" ? ++reads : Reflect.get(target, key)) }),
  };
  assert.deepStrictEqual(roundTrip(value), { a: 1, b: { c: 2 } });
  t.equal(reads, 2);
});

class Point {
  x = 1;
}
class Tagged extends Map {}

const REFUSED: [name: string, value: unknown, message: string][] = [
  ["function", { items: [1, 2, 3, { price: () => 1 }] }, "$.items[3].price: function; pass data, not code"],
  ["class", [Point], "$[0]: function; pass data, not code"],
  ["symbol", { a: Symbol("s") }, "$.a: symbol; pass a string"],
  ["event", event("paid"), "$: event of Perdure; pass its name, its id or what it gives"],
  ["symbol key", { a: { [Symbol("s")]: 1 } }, "$.a: symbol key Symbol(s); use a string key"],
  ["Promise", { user: Promise.resolve(1) }, "$.user: Promise; await it first"],
  ["WeakMap", [new WeakMap()], "$[0]: instance of WeakMap; pass a plain object"],
  ["WeakSet", [new WeakSet()], "$[0]: instance of WeakSet; pass a plain object"],
  ["WeakRef", [new WeakRef({})], "$[0]: instance of WeakRef; pass a plain object"],
  ["class instance", { p: new Point() }, "$.p: instance of Point; pass a plain object"],
  ["subclass of a built-in", { p: new Tagged() }, "$.p: instance of Tagged; pass a plain object"],
  ["inherited object", Object.create({ a: 1 }), "$: instance of Object; pass a plain object"],
  ["boxed", [Object(1)], "$[0]: Number object; pass the primitive"],
  ["Math", [Math], "$[0]: instance of Math; pass a plain object"],
  ["generator", [(function* () {})()], "$[0]: instance of Generator; pass a plain object"],
  ["Blob", { "a b": new Blob([]) }, '$["a b"]: instance of Blob; pass a plain object'],
  ["stream", [new ReadableStream()], "$[0]: instance of ReadableStream; pass a plain object"],
  ["SharedArrayBuffer", [new SharedArrayBuffer(1)], "$[0]: instance of SharedArrayBuffer; pass a plain object"],
  ["URLSearchParams", [new URLSearchParams()], "$[0]: instance of URLSearchParams; pass a plain object"],
  ["invalid Date", { at: new Date(Number.NaN) }, "$.at: invalid Date; check it before you pass it"],
  ["sparse array", { a: Array(3) }, "$.a[0]: hole in a sparse array; fill it with null or undefined"],
  ["match", "abc".match(/b/), '$: extra property "index" of an array; pass a plain object'],
  [
    "Date with more",
    Object.assign(new Date(1), { zone: "UTC" }),
    '$: extra property "zone" of a Date; pass a plain object',
  ],
  ["Map value", new Map([["k", { f() {} }]]), '$.get("k").f: function; pass data, not code'],
  ["Map value by object", new Map([[{}, () => 1]]), "$.value(0): function; pass data, not code"],
  ["Map key", new Map([[() => 1, 1]]), "$.key(0): function; pass data, not code"],
  ["Set item", new Set([1, () => 1]), "$.item(1): function; pass data, not code"],
  ["toJSON", { toJSON: () => 1 }, "$.toJSON: function; pass data, not code"],
  [
    "throwing getter",
    {
      a: {
        b: 1,
        get c() {
          throw new Error("boom");
        },
      },
    },
    "$.a.c: reading it threw Error: boom; pass plain data",
  ],
  [
    "throwing Proxy",
    {
      a: new Proxy(
        {},
        {
          ownKeys() {
            throw new Error("boom");
          },
        },
      ),
    },
    "$.a: reading it threw Error: boom; pass plain data",
  ],
];

await t.test("what cannot come back equal is refused with its path and a fix", async (t) => {
  for (const [name, value, message] of REFUSED) {
    const error = thrownBy(() => codec.encode(value, 'input of workflow "order"'));
    t.equal(error.code, "PERDURE_SERIALIZE", name);
    t.equal(error.message, `input of workflow "order": cannot store ${message}`, name);
  }
  t.equal(
    thrownBy(() =>
      codec.encode(
        {
          get a() {
            throw new RangeError("why");
          },
        },
        "v",
      ),
    ).cause.message,
    "why",
  );
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  t.match(
    thrownBy(() => codec.encode({ proxy }, "v")).message,
    /^v: cannot store \$\.proxy: reading it threw TypeError/,
  );
});

await t.test("1,000 levels are stored, more are refused, and no stack overflows", async (t) => {
  const wraps: Record<string, (inner: unknown) => unknown> = {
    object: (a) => ({ a }),
    array: (a) => [a],
    map: (a) => new Map([["a", a]]),
    "map key": (a) => new Map([[a, 1]]),
    set: (a) => new Set([a]),
    dangerous: (a) => ownKeys([["__proto__", a]]),
    mixed: (a) => ({ list: [a, undefined] }),
  };
  for (const [name, wrap] of Object.entries(wraps)) {
    const levels = name === "mixed" ? 500 : 1_000;
    const value = nested(levels, wrap);
    const text = codec.encode(value, "value");
    t.equal(codec.encode(codec.decode(text, "value"), "value"), text, name);
    for (const deeper of [levels + 1, 10_000]) {
      const error = thrownBy(() => codec.encode(nested(deeper, wrap), "value"));
      t.equal(error.code, "PERDURE_SERIALIZE", name);
      t.match(error.message, /: nested deeper than 1,000 levels; flatten it$/);
      t.ok(error.message.length < 300);
    }
  }
  const chain = nested(10_000, (cause) => new Error("link", { cause })) as Error;
  t.ok(codec.encodeError(chain, "error").length > 0);
});

await t.test("a value above the limit is refused with size, limit and the path of the biggest child", async (t) => {
  const small = new ValueCodec({ limit: 1_000 });
  t.equal(small.encode("x".repeat(989), "v").length, 1_000);
  const error = thrownBy(() => small.encode({ a: 1, rows: [{ b: 1 }, { text: "é".repeat(600) }] }, "output"));
  t.equal(error.code, "PERDURE_TOO_LARGE");
  t.equal(
    error.message,
    "output: the value is too large: 1245 bytes, the limit is 1000, most of it in $.rows[1].text; store it elsewhere and pass its key",
  );
  t.equal(thrownBy(() => codec.encode("x".repeat(1_048_576), "v")).code, "PERDURE_TOO_LARGE");
  t.equal(thrownBy(() => small.encode(10n ** 5000n, "v")).code, "PERDURE_TOO_LARGE");
});

await t.test("plain JSON takes the fast path and has the bytes that superjson would write", async (t) => {
  const superjson = new SuperJSON();
  // `-0`, errors and bytes aside, the slow path writes the bytes that superjson writes, too.
  const values = [null, 1, "x", [], {}, { a: [1, { b: "\ud800\u0000" }], "2": null, "1": true }, [[[]]], 1e21, 5e-324];
  for (const value of values) {
    t.equal(codec.encode(value, "v"), `{"json":${JSON.stringify(value)}}`);
    t.equal(codec.encode(value, "v"), superjson.stringify(value));
  }
  const typed = [
    undefined,
    { a: undefined },
    new Date(1),
    [new Set([1n]), new Map([["a", /x/g]])],
    { "a.b": Number.NaN },
  ];
  for (const value of typed) t.equal(codec.encode(value, "v"), superjson.stringify(value));
  assert.deepStrictEqual(codec.decode('{"json": {"amount": 99}}', "event"), { amount: 99 });
});

const HOSTILE = [
  "",
  "{",
  "null",
  "1",
  "[]",
  "{}",
  '{"__proto__":{"json":1}}',
  '{"json":1,"meta":null}',
  '{"json":1,"meta":[]}',
  '{"json":1,"meta":{"values":"x","v":1}}',
  '{"json":1,"meta":{"values":[["custom","nothing"]],"v":1}}',
  '{"json":1,"meta":{"values":[["custom","constructor"]],"v":1}}',
  '{"json":{},"meta":{"values":[["class","Point"]],"v":1}}',
  '{"json":"x","meta":{"values":[["symbol","x"]],"v":1}}',
  '{"json":4000000000,"meta":{"values":[["typed-array","Uint8Array"]],"v":1}}',
  '{"json":1,"meta":{"values":["__proto__"],"v":1}}',
  '{"json":1,"meta":{"values":["toString"],"v":1}}',
  '{"json":{"a":1},"meta":{"values":{"__proto__.polluted":["undefined"]},"v":1}}',
  '{"json":{"a":1},"meta":{"values":{"constructor.prototype.polluted":["undefined"]},"v":1}}',
  '{"json":{"a":1},"meta":{"referentialEqualities":{"a":["__proto__.polluted"]},"v":1}}',
  '{"json":{"a":1},"meta":{"referentialEqualities":{"a.toString":["a"]},"v":1}}',
  '{"json":"(","meta":{"values":["regexp"],"v":1}}',
  '{"json":"/(/","meta":{"values":["regexp"],"v":1}}',
  '{"json":"not a url","meta":{"values":["URL"],"v":1}}',
  '{"json":"1x","meta":{"values":["bigint"],"v":1}}',
  '{"json":7,"meta":{"values":["map"],"v":1}}',
  '{"json":[1],"meta":{"values":["map"],"v":1}}',
  '{"json":null,"meta":{"values":["Error"],"v":1}}',
  '{"json":{"type":"Function","base64":""},"meta":{"values":[["custom","bytes"]],"v":1}}',
  '{"json":{"type":"Uint8Array","base64":9},"meta":{"values":[["custom","bytes"]],"v":1}}',
  '{"json":{"type":"Float64Array","base64":"AA=="},"meta":{"values":[["custom","bytes"]],"v":1}}',
  '{"json":{"class":1},"meta":{"values":[["custom","Error"]],"v":1}}',
  '{"json":[0],"meta":{"values":[["custom","ref"]],"v":1}}',
  '{"json":{"a":[99]},"meta":{"values":{"a":[["custom","ref"]]},"v":1}}',
  '{"json":{"a":"x"},"meta":{"values":{"a":[["custom","ref"]]},"v":1}}',
  '{"json":[[{},1]],"meta":{"values":[["custom","object"]],"v":1}}',
  '{"json":1,"meta":{"values":["undefined"],"v":2}}',
  `{"json":1,"meta":{"values":${'{"a":'.repeat(50_000)}1${"}".repeat(50_000)},"v":1}}`,
];

await t.test("hostile text is refused with PERDURE_DECODE, or is harmless, and touches no prototype", async (t) => {
  const before = Reflect.ownKeys(Object.prototype).length;
  for (const text of HOSTILE) {
    const error = thrownBy(() => codec.decode(text, 'event "paid"'));
    t.equal(error.code, "PERDURE_DECODE", text.slice(0, 100));
    t.match(error.message, /^event "paid": the stored value cannot be read back: /);
  }
  const sly =
    '{"json":{"class":"Error","name":"E","message":"m","props":{"__proto__":{"polluted":1},"a":1}},"meta":{"values":[["custom","Error"]],"v":1}}';
  const error: any = codec.decode(sly, "e");
  t.equal(Object.getPrototypeOf(error), Error.prototype);
  t.equal(error.polluted, undefined);
  t.equal(Reflect.ownKeys(Object.prototype).length, before);
  const own: any = codec.decode('{"json":{"__proto__":{"polluted":1}}}', "e");
  t.equal(Object.getPrototypeOf(own), Object.prototype);
});

function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let bits = Math.imul(state ^ (state >>> 15), 1 | state);
    bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits;
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}

await t.test("2,000 random values come back equal and encode to the same text again", async (t) => {
  const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
  t.comment(`SEED=${seed}`);
  const random = generator(seed);
  const leaves = Object.values(VALUES);
  const keys = ["a", "b.c", "", "0", "__proto__", "constructor", "\\", "\u0000", "length", "toJSON"];
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)]!;
  function make(depth: number, pool: unknown[]): unknown {
    const kind = depth > 4 ? 0 : Math.floor(random() * 8);
    if (kind < 2) return pick(leaves);
    if (kind === 2 && pool.length > 0) return pick(pool);
    const items = Array.from({ length: Math.floor(random() * 4) }, () => make(depth + 1, pool));
    const value = container(kind, items);
    pool.push(value);
    return value;
  }
  function container(kind: number, items: unknown[]): unknown {
    if (kind < 5) return ownKeys(items.map((item) => [pick(keys), item]));
    if (kind === 5) return items;
    if (kind === 6) return new Set(items);
    return new Map(items.map((item) => [pick([item, pick(keys), pick(leaves)]), item]));
  }
  for (let round = 0; round < 2_000; round++) {
    const value = make(0, []);
    const text = codec.encode(value, "value");
    const back = codec.decode(text, "value");
    assert.deepStrictEqual(back, value, `SEED=${seed} round ${round}`);
    assert.equal(codec.encode(back, "value"), text, `SEED=${seed} round ${round}`);
  }
});

await t.test("built-in errors and Perdure's own are revived as they were", async (t) => {
  for (const error of [
    new Error("a"),
    new TypeError("b", { cause: "why" }),
    new RangeError("c"),
    new SyntaxError("d"),
    new ReferenceError("e"),
    new URIError("f"),
    new EvalError("g"),
    new AggregateError([new Error("h")], "i"),
    new PerdureError("PERDURE_STATE", "j"),
    new NonRetryableError("k", { cause: new Error("l") }),
    new TimeoutError("m"),
    new RunFailedError("run-1", "n", { cause: new TypeError("o") }),
    new RunCancelledError("run-2", null),
  ]) {
    const back: any = codec.revive(error);
    assert.deepStrictEqual(back, error);
    t.equal(Object.getPrototypeOf(back), Object.getPrototypeOf(error), error.name);
    t.equal(back.stack, error.stack);
    t.equal(back.name, error.name);
  }
  for (const error of [AbortSignal.abort().reason, new DOMException("late", "TimeoutError")]) {
    const back: any = codec.revive(error);
    t.ok(back instanceof DOMException);
    t.same([back.name, back.message, back.code], [error.name, error.message, error.code]);
  }
});

await t.test(
  "a registered class passes instanceof without its constructor; an unregistered one is an Error that keeps its name, with one warning",
  async (t) => {
    const lines: string[] = [];
    const warn = (line: string) => lines.push(line);
    const knowing = new ValueCodec({ errors: [PaymentDeclined], warn });
    const back: any = knowing.revive(new PaymentDeclined(7));
    t.ok(back instanceof PaymentDeclined);
    t.same([back.amount, back.message, back.name], [7, "declined: 7", "PaymentDeclined"]);
    t.same(lines, []);
    t.ok(roundTrip({ e: new PaymentDeclined(1) }, knowing).e instanceof PaymentDeclined);
    t.ok(knowing.revive(new CardDeclined(8)) instanceof PaymentDeclined, "the nearest registered class");
    t.equal(lines.splice(0).length, 1);
    const strange = new ValueCodec({ warn });
    const plain: any = strange.revive(new PaymentDeclined(7));
    strange.revive(new PaymentDeclined(8));
    t.equal(Object.getPrototypeOf(plain), Error.prototype);
    t.same([plain.name, plain.amount], ["PaymentDeclined", 7]);
    t.same(lines, [
      "error class PaymentDeclined is not registered, so it comes back as Error; add it: new Perdure({ errors: [PaymentDeclined] })",
    ]);
    const quiet = new ValueCodec({ warn });
    quiet.revive(new TypeError("fetch failed", { cause: new PaymentDeclined(1) }));
    t.equal(lines.length, 1, "of a cause nobody is warned");
    quiet.revive(new AggregateError([new PaymentDeclined(1)]));
    t.equal(lines.length, 2, "of one among several errors");
    const elsewhere: any = codec.decodeError(knowing.encodeError(new PaymentDeclined(9), "e"), "e");
    t.same([Object.getPrototypeOf(elsewhere), elsewhere.name], [Error.prototype, "PaymentDeclined"]);
  },
);

await t.test("errors refuses duplicate names and what is no error class", async (t) => {
  const twin = { PaymentDeclined: class PaymentDeclined extends Error {} };
  t.equal(
    thrownBy(() => new ValueCodec({ errors: [PaymentDeclined, twin.PaymentDeclined] })).code,
    "PERDURE_DUPLICATE",
  );
  t.equal(thrownBy(() => new ValueCodec({ errors: [TypeError] })).code, "PERDURE_DUPLICATE");
  t.equal(thrownBy(() => new ValueCodec({ errors: [Point as never] })).code, "PERDURE_OPTION");
  const foreign = { TimeoutError: class TimeoutError extends Error {} }.TimeoutError;
  const both = new ValueCodec({ errors: [foreign] });
  t.ok(both.revive(new foreign("x")) instanceof foreign);
  t.ok(both.revive(new TimeoutError("x")) instanceof TimeoutError);
  t.notOk(codec.revive(new foreign("x")) instanceof TimeoutError, "a stranger of the same name is not taken for ours");
});

await t.test("anything thrown comes back exactly, and no failure is unstorable", async (t) => {
  for (const thrown of ["text", undefined, null, 0, Number.NaN, { status: 500, at: new Date(1) }, [1n]]) {
    assert.deepStrictEqual(codec.revive(thrown), thrown);
  }
  const mixed: any = codec.revive(Object.assign(new Error("m"), { socket: () => 1, config: { f() {} }, status: 500 }));
  t.same(Object.keys(mixed), ["status"]);
  const holder = { a: 1 };
  const kept: any = codec.revive(Object.assign(new Error("m"), { bad: [holder, () => 1], one: holder, two: holder }));
  t.equal(kept.one, kept.two, "numbering holds where a property was dropped");
  const huge: any = codec.revive(new Error("x".repeat(10_000_000), { cause: "c" }));
  t.match(huge.message, /^x{65536}… \[truncated, 10000000 characters\]$/);
  t.equal(huge.cause, "c");
  t.match(codec.encodeError(new Error("x".repeat(70_000)), "e"), /"truncated":true/);
  const heavy: any = codec.revive(
    Object.assign(new TypeError("heavy"), { body: "x".repeat(2_000_000), code: "E_HEAVY" }),
  );
  t.ok(heavy instanceof TypeError);
  t.same([heavy.message, heavy.code, heavy.body], ["heavy", "E_HEAVY", undefined]);
  const odd: any = codec.revive(() => 1);
  t.same(
    [odd.name, odd.message],
    ["NonErrorThrown", "a value was thrown that cannot be stored: [Function (anonymous)]"],
  );
  const mean = new Error("x");
  for (const key of ["stack", "message", "name", "cause", "own"]) {
    Object.defineProperty(mean, key, {
      enumerable: true,
      get: () => {
        throw new Error("no");
      },
    });
  }
  t.ok(codec.revive(mean) instanceof Error);
  t.ok(
    codec.revive(
      new Proxy(new Error("x"), {
        getPrototypeOf() {
          throw new Error("no");
        },
      }),
    ) instanceof Error,
  );
  t.ok(new ValueCodec({ limit: 300 }).revive(new Error("x".repeat(5_000))) instanceof Error);
});
