/** The canonical hash: golden vectors, because hashes are stored, and pairs that must differ or agree. */

import t from "tap";
import { ValueCodec } from "../../lib/core/codec.ts";
import { canonicalHash } from "../../lib/core/hash.ts";

function cycle(name: string, order?: "self first"): unknown {
  const loop: Record<string, unknown> = order ? { self: null } : { name };
  return Object.assign(loop, { self: loop, name });
}

const VECTORS: [values: readonly unknown[], hash: string][] = [
  [[], "T1PNoYwrqgwDVLtf"],
  [["order-42"], "OY_KMigpBBE6uCMk"],
  [["order-42", { amount: 99, items: [1, 2.5, null, true], note: "é\ud800\u0000" }], "E1wGzL2fCai6xJUI"],
  [[undefined, -0, Number.NaN, 10n], "8jbC1e2qPEGcLtAL"],
  [[new Date(1), new Map([["a", new Set([1])]]), /a/g, new URL("https://example.org")], "pPZQgZWM7OQOtGMO"],
  [[Buffer.from("hello"), new Uint8Array([1]), new ArrayBuffer(2)], "hgy5KlWbuGzvF_pM"],
  [[Object.assign(new TypeError("t"), { code: "E" })], "jJcnZnWM8Q9anIX1"],
  [[cycle("a")], "McjDmAME7EdZox5f"],
  [[{ long: ["x".repeat(2_000)] }], "iZeHtAs_sLwbGkd-"],
];

await t.test("golden vectors: a stored hash is still the hash", async (t) => {
  for (const [values, hash] of VECTORS) t.equal(canonicalHash(values), hash);
});

await t.test("values that differ have different hashes", async (t) => {
  const x = { a: 1 };
  const values = [
    ...[
      null,
      undefined,
      Number.NaN,
      Number.POSITIVE_INFINITY,
      Number.NEGATIVE_INFINITY,
      0,
      -0,
      1,
      1n,
      "1",
      true,
      "true",
    ],
    ...["null", "u", "", "D1", "\ud800", "\udc00", "\ufffd", new Date(1), new Date(2), "1970-01-01T00:00:00.001Z"],
    ...[[], {}, new Map(), new Set(), [undefined], [null], { a: undefined }, { a: null }, { a: 1 }, { a: 1n }, [[]]],
    ...[new Map([["a", 1]]), new Map([["a", "1"]]), new Set(["a", 1]), [["a", 1]], [["a"], 1], ["a", 1], ["a,1"]],
    ...[Buffer.from([1]), Buffer.from([2]), new Uint8Array([1]), new Int8Array([1]), new Uint8Array([1]).buffer],
    ...[/a/, /a/g, /b/, new URL("https://a.org"), "https://a.org/", new Error("a"), new TypeError("a"), new Error("b")],
    ...[
      cycle("a"),
      cycle("b"),
      { name: "a", self: { name: "a" } },
      { x, y: x, z: [x] },
      { "a\u0000": 1 },
      { a: { b: 1 } },
    ],
    ...["x".repeat(2_000), ["x".repeat(2_000)], ["x".repeat(2_001)], new Error("a", { cause: 1 })],
  ];
  const hashes = new Map(values.map((value) => [canonicalHash([value]), value]));
  t.equal(hashes.size, values.length);
  t.not(canonicalHash([1]), canonicalHash([1, undefined]));
  t.not(canonicalHash(["a", "b"]), canonicalHash([["a", "b"]]));
});

await t.test("values that are equal have the same hash", async (t) => {
  const part = { n: 1 };
  const pairs = [
    [
      { a: 1, b: { c: 2, d: 3 } },
      { b: { d: 3, c: 2 }, a: 1 },
    ],
    [
      { "2": 1, "10": 2 },
      { "10": 2, "2": 1 },
    ],
    [
      [part, part],
      [{ n: 1 }, { n: 1 }],
    ],
    [cycle("a"), cycle("a", "self first")],
    [Object.assign(Object.create(null), { a: 1 }), { a: 1 }],
    [new Error("a"), new Error("a")],
    [Buffer.from("abc"), Buffer.from("xabcx").subarray(1, 4)],
  ];
  for (const [left, right] of pairs) t.equal(canonicalHash([left]), canonicalHash([right]));
  const codec = new ValueCodec();
  for (const [values, hash] of VECTORS) {
    t.equal(canonicalHash(codec.decode(codec.encode(values, "v"), "v") as unknown[]), hash, "also after storage");
  }
});

await t.test(
  "the hash is 16 characters of base64url, and bounded in time for shared, cyclic and deep values",
  async (t) => {
    t.match(canonicalHash([{ a: 1 }]), /^[\w-]{16}$/);
    let value: unknown = ["leaf"];
    for (let level = 0; level < 200; level++) value = [value, value];
    t.match(canonicalHash([value]), /^[\w-]{16}$/);
    const graph = Array.from({ length: 40 }, () => ({ links: [] as unknown[] }));
    for (const node of graph) node.links.push(...graph);
    t.match(canonicalHash(graph), /^[\w-]{16}$/);
    let deep: unknown = 1;
    for (let level = 0; level < 999; level++) deep = level % 2 ? [deep] : new Map([["a", deep]]);
    t.match(canonicalHash([deep]), /^[\w-]{16}$/);
    t.throws(() => canonicalHash([[[deep]]]), {
      code: "PERDURE_SERIALIZE",
      message: /nested deeper than 1,000 levels/,
    });
  },
);

await t.test("what has no content to hash is refused with its path", async (t) => {
  t.throws(() => canonicalHash([1, { f: () => 1 }]), {
    code: "PERDURE_SERIALIZE",
    message: "arguments: cannot store $[1].f: function; pass data, not code",
  });
  const mean = new Proxy(
    {},
    {
      ownKeys: () => {
        throw new Error("boom");
      },
    },
  );
  t.throws(() => canonicalHash([{ mean }]), { code: "PERDURE_SERIALIZE", message: /reading it threw Error: boom/ });
  t.throws(() => canonicalHash([Promise.resolve()]), {
    message: "arguments: cannot store $[0]: Promise; await it first",
  });
});
