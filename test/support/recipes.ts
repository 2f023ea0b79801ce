/** Values as fuzzers make them: a recipe is plain JSON, so it prints, shrinks and builds the same value twice. */
import fc from "fast-check";
import { ownKeys } from "./values.ts";

/** A name alone, or a kind with what it is made of. */
export type Recipe = readonly [kind: string, ...parts: any[]];

class Money {
  readonly cents = 5;
}

const thrower = (why: string) => (): never => {
  throw new Error(`recipe: ${why}`);
};

/** A Proxy of which these operations throw. */
function refusing(target: object, traps: readonly string[]): object {
  return new Proxy(target, Object.fromEntries(traps.map((trap) => [trap, thrower(`trap ${trap}`)])));
}

function revoked(target: object): object {
  const { proxy, revoke } = Proxy.revocable(target, {});
  revoke();
  return proxy;
}

/** What comes back equal. */
const GOOD: Record<string, () => unknown> = {
  undefined: () => undefined,
  null: () => null,
  true: () => true,
  zero: () => 0,
  "minus zero": () => -0,
  NaN: () => Number.NaN,
  Infinity: () => Number.POSITIVE_INFINITY,
  "1e18": () => 1e18,
  bigint: () => -(2n ** 200n),
  "wide bigint": () => 10n ** 3000n,
  "far date": () => new Date(8.64e15),
  "early date": () => new Date(-62_135_596_800_001),
  regexp: () => /a\/b[/]"\u2028/giu,
  url: () => new URL("https://u:p@example.org/?q=1#h"),
  buffer: () => Buffer.from([0, 255, 1]),
  "array buffer": () => new Uint8Array([1, 2]).buffer,
  view: () => new DataView(new Uint8Array([1, 2, 3]).buffer, 1, 2),
  floats: () => new Float64Array([Number.NaN, -0, 0.1]),
  bigints: () => new BigUint64Array([2n ** 64n - 1n]),
  part: () => new Uint16Array(new Uint16Array([1, 2, 3, 4]).buffer, 2, 2),
  poison: () =>
    JSON.parse('{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"hasOwnProperty":1}'),
  "looks stored": () => ({ json: null, meta: { values: ["undefined"], v: 1 }, from: "sql", codec: ["x"], data: "" }),
  "odd properties": () =>
    ownKeys([
      ["then", 1],
      ["toJSON", 2],
      ["toString", 3],
    ]),
};

/** What cannot be stored, or not even be read. */
const BAD: Record<string, () => unknown> = {
  function: () => () => 1,
  symbol: () => Symbol("s"),
  class: () => Money,
  instance: () => new Money(),
  promise: () => Promise.resolve(1),
  "weak map": () => new WeakMap(),
  "boxed string": () => Object("x"),
  "boxed symbol": () => Object(Symbol("s")),
  "invalid date": () => new Date(Number.NaN),
  sparse: () => Object.assign([1], { length: 3 }),
  "array with a key": () => Object.assign([1], { extra: 1 }),
  "shared memory": () => new Uint8Array(new SharedArrayBuffer(2)),
  "symbol key": () => ({ [Symbol("k")]: 1 }),
  "a real then": () => ownKeys([["then", thrower("then")]]),
  "throwing toJSON": () => ({
    toJSON: thrower("toJSON"),
    toString: thrower("toString"),
    [Symbol.toPrimitive]: thrower("p"),
  }),
  "throwing inspect": () => ({ [Symbol.for("nodejs.util.inspect.custom")]: thrower("inspect") }),
  generator: () =>
    (function* (): Generator<number> {
      yield 1;
    })(),
  "revoked object": () => revoked({}),
  "revoked array": () => revoked([]),
  "revoked function": () => revoked(() => {}),
  "proxy of a date": () => new Proxy(new Date(0), {}),
  "proxy of a map": () => new Proxy(new Map(), {}),
  "proxy of an error": () => new Proxy(new Error("e"), {}),
  "error with a cyclic cause": () => {
    const error = new Error("cyclic");
    error.cause = error;
    return error;
  },
  "error with hostile text": () =>
    Object.defineProperty(new Error(), "message", { get: thrower("message"), enumerable: true }),
  "error of 3 MB": () => new RangeError("x".repeat(3_000_000)),
  "string of 2 MB": () => "é".repeat(1_000_000),
  globalThis: () => globalThis,
  process: () => process,
};

/** What options are often meant to be. */
const USUAL: Record<string, () => unknown> = {
  "1s": () => "1s",
  five: () => 5,
  minute: () => ({ minutes: 1 }),
  strict: () => "strict",
  retry: () => ({ type: "fixed", maxAttempts: 2, delay: 1 }),
  exponential: () => ({ type: "exponential", maxAttempts: Number.POSITIVE_INFINITY, baseDelay: "1s", factor: 1e300 }),
  cron: () => "0 0 31 2 *",
  zone: () => "Europe/Berlin",
  tags: () => ["a", "b"],
  states: () => ["failed", "running"],
  "an instant": () => new Date(1_700_000_000_000),
  "aborted signal": () => AbortSignal.abort(new Error("aborted by the test")),
};

const ODD_UNITS = [
  "\0",
  "\ud800",
  "\udfff",
  "\u202e",
  "\u200b",
  "\ufeff",
  "\x85",
  "\u2028",
  '"',
  "'",
  "\\",
  "$",
  "%",
  "/",
  "#",
  "@",
  "\n",
  " ",
  "é",
  "😀",
];

/** Text of any code units, often with those that databases, slots or terminals stumble over; now and then a long one. */
export const text: fc.Arbitrary<string> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc
      .array(
        fc.oneof(
          fc.constantFrom(...ODD_UNITS),
          fc.constantFrom("a", "b", "1", "-"),
          fc.integer({ min: 0, max: 0xffff }).map((unit) => String.fromCharCode(unit)),
        ),
        { maxLength: 12 },
      )
      .map((units) => units.join("")),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      "a",
      "order-1",
      "a/b#0@c",
      "__proto__",
      "constructor",
      "toString",
      "then",
      "pg_x",
      "NULL",
      "{}",
      "%s",
      `\${x}`,
    ),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.constantFrom("x", "é", "😀", " ", "\ud800"), fc.constantFrom(64, 127, 128, 255, 256, 70_000))
      .map(([unit, many]) => unit.repeat(many)),
  },
);

const TRAPS = ["get", "has", "ownKeys", "getOwnPropertyDescriptor", "getPrototypeOf"];

const recipes = fc.letrec<{ recipe: Recipe }>((tie) => ({
  recipe: fc.oneof(
    { maxDepth: 4, depthIdentifier: "recipe" },
    { weight: 4, arbitrary: text.map((value): Recipe => ["text", value]) },
    {
      weight: 2,
      arbitrary: fc.double().map((value): Recipe => ["number", Number.isFinite(value) ? String(value) : "1e400"]),
    },
    { weight: 4, arbitrary: fc.constantFrom(...Object.keys(GOOD)).map((name): Recipe => ["good", name]) },
    { weight: 3, arbitrary: fc.constantFrom(...Object.keys(BAD)).map((name): Recipe => ["bad", name]) },
    { weight: 3, arbitrary: fc.constantFrom(...Object.keys(USUAL)).map((name): Recipe => ["usual", name]) },
    {
      weight: 1,
      arbitrary: fc
        .tuple(
          fc.constantFrom("deep arrays", "deep objects", "wide", "deep causes"),
          fc.constantFrom(10, 900, 1_100, 20_000),
        )
        .map(([kind, many]): Recipe => [kind, many]),
    },
    { weight: 4, arbitrary: fc.array(tie("recipe"), { maxLength: 4 }).map((items): Recipe => ["array", items]) },
    {
      weight: 4,
      arbitrary: fc
        .array(fc.tuple(text, tie("recipe")), { maxLength: 4 })
        .map((entries): Recipe => ["object", entries]),
    },
    {
      weight: 1,
      arbitrary: fc
        .array(fc.tuple(text, tie("recipe")), { maxLength: 3 })
        .map((entries): Recipe => ["null object", entries]),
    },
    {
      weight: 2,
      arbitrary: fc
        .array(fc.tuple(tie("recipe"), tie("recipe")), { maxLength: 3 })
        .map((entries): Recipe => ["map", entries]),
    },
    { weight: 1, arbitrary: fc.array(tie("recipe"), { maxLength: 3 }).map((items): Recipe => ["set", items]) },
    {
      weight: 1,
      arbitrary: fc.tuple(text, tie("recipe")).map(([message, cause]): Recipe => ["error", message, cause]),
    },
    { weight: 1, arbitrary: tie("recipe").map((inner): Recipe => ["cycle", inner]) },
    { weight: 1, arbitrary: tie("recipe").map((inner): Recipe => ["twice", inner]) },
    { weight: 1, arbitrary: fc.tuple(text, tie("recipe")).map(([key, inner]): Recipe => ["getter", key, inner]) },
    {
      weight: 2,
      arbitrary: fc.tuple(fc.subarray(TRAPS), tie("recipe")).map(([traps, inner]): Recipe => ["proxy", traps, inner]),
    },
  ),
}));

export const recipe: fc.Arbitrary<Recipe> = recipes.recipe;

/** Options: keys that are known and some that are not, each with anything. */
export const optionsWith = (...keys: string[]): fc.Arbitrary<Recipe> =>
  fc.oneof(
    { weight: 1, arbitrary: recipe },
    {
      weight: 4,
      arbitrary: fc
        .array(
          fc.tuple(
            fc.oneof({ weight: 8, arbitrary: fc.constantFrom(...keys) }, { weight: 1, arbitrary: text }),
            fc.oneof(
              recipe,
              fc.constantFrom(...Object.keys(USUAL)).map((name): Recipe => ["usual", name]),
            ),
          ),
          { maxLength: 3 },
        )
        .map((entries): Recipe => ["object", entries]),
    },
  );

/** The value of a recipe, made anew. */
export function build([kind, first, second]: Recipe): any {
  switch (kind) {
    case "text":
      return first;
    case "number":
      return Number(first);
    case "good":
      return GOOD[first]!();
    case "bad":
      return BAD[first]!();
    case "usual":
      return USUAL[first]!();
    case "array":
      return first.map(build);
    case "object":
      return objectOf(first, {});
    case "null object":
      return objectOf(first, Object.create(null));
    case "map":
      return new Map(first.map((entry: [Recipe, Recipe]) => entry.map(build)));
    case "set":
      return new Set(first.map(build));
    case "error":
      return new TypeError(first, { cause: build(second) });
    case "cycle": {
      const inner: unknown[] = [build(first)];
      inner.push(inner, { inner });
      return inner;
    }
    case "twice": {
      const shared = { shared: build(first) };
      return [shared, shared];
    }
    case "getter":
      return Object.defineProperty({ a: build(second) }, first, { get: thrower("getter"), enumerable: true });
    case "proxy": {
      const inner = build(second);
      const isObject = (typeof inner === "object" && inner !== null) || typeof inner === "function";
      return refusing(isObject ? inner : { inner }, first);
    }
    case "wide":
      return Object.fromEntries(Array.from({ length: first }, (_, n) => [`k${n}`, n]));
    default:
      return deep(kind, first);
  }
}

function deep(kind: string, levels: number): unknown {
  let value: unknown = 1;
  for (let level = 0; level < levels; level += 1) {
    value =
      kind === "deep arrays" ? [value] : kind === "deep objects" ? { value } : new Error("deep", { cause: value });
  }
  return value;
}

function objectOf(entries: [string, Recipe][], into: object): object {
  for (const [key, inner] of entries) {
    Object.defineProperty(into, key, { value: build(inner), writable: true, enumerable: true, configurable: true });
  }
  return into;
}

/** Whether its value, once it was accepted, is to come back equal to another one of the same recipe. */
export function isComparable([kind, first, second]: Recipe): boolean {
  switch (kind) {
    case "array":
    case "set":
      return first.every(isComparable);
    case "map":
      return first.flat().every(isComparable);
    case "object":
      return first.every(([, inner]: [string, Recipe]) => isComparable(inner));
    case "error":
      return isComparable(second);
    case "cycle":
    case "twice":
      return isComparable(first);
    default:
      return !["bad", "getter", "proxy", "null object", "deep causes"].includes(kind);
  }
}
