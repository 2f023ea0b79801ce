/** The codecs by themselves: what goes in comes out, nothing else does, and what is handed in wrongly is refused. */
import assert from "node:assert/strict";
import { createSecretKey, randomBytes } from "node:crypto";
import t from "tap";
import { type Codec, compression, type EncryptionOptions, encryption } from "../../lib/codec/index.ts";
import { ValueCodec } from "../../lib/core/codec.ts";
import { checkCodecs } from "../../lib/core/codecs.ts";
import { StoredCodec } from "../../lib/core/stored.ts";
import { Perdure } from "../../lib/index.ts";
import { refusal } from "../support/refusal.ts";
import { VALUES } from "../support/values.ts";

const one = Buffer.alloc(32, 1);
const two = Buffer.alloc(32, 2);
const hashKey = Buffer.alloc(32, 9);
const options: EncryptionOptions = { keys: { one, two }, current: "one", hashKey };
const place = { run: "order-42", slot: "step:charge/~abc#0" };

const KEYED = "~I3Vt0gqe5VOSNOhQ";
const KEYED_LONG = "~KM_XbkhHzvisvN4l";
const GOLDEN =
  '{"codec":["encrypt:one"],"data":"AXvWn2OurKiqYelhccXDmWuBgkElnL9jjZI6Pv32XhWz/SsWaqYXbdA1DXL9pJGif2g+2eZ+fcHNOCNY4c+furAL0Uza/+3A7ML8BfMdBbYiJvtNSQ21hfHckiFF9EQ/Qv4D"}';

const stored = (...codecs: Codec[]): StoredCodec => new StoredCodec(new ValueCodec(), codecs);

/** A small generator, so that a failure can be repeated. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

await t.test("every value comes back equal, compressed and encrypted, whatever the order and the method", async (t) => {
  const chains = [
    [encryption(options)],
    [compression({ above: 0 }), encryption(options)],
    [encryption(options), compression({ above: 0 })],
    ...(["brotli", "gzip", "deflate"] as const).map((method) => [
      compression({ above: 0, method }),
      encryption(options),
    ]),
    [compression({ above: 0 })],
  ];
  for (const chain of chains) {
    const codec = stored(...chain);
    for (const [name, value] of Object.entries(VALUES)) {
      for (const wrapped of [value, { a: value, padding: "x".repeat(2_000) }]) {
        const text = codec.encode(wrapped, "value", place);
        JSON.parse(text);
        assert.ok(!text.includes("\0"), name);
        assert.deepStrictEqual(codec.decode(text, "value", place), wrapped, name);
      }
    }
  }
  t.pass();
});

await t.test("random texts of any length come back, and any changed byte is noticed", async (t) => {
  const next = random(7);
  const codec = stored(compression({ above: 200 }), encryption(options));
  for (let round = 0; round < 300; round += 1) {
    const value = Array.from({ length: Math.floor(next() * 300) }, () => Math.floor(next() * 40).toString(36)).join("");
    const text = codec.encode(value, "value", place);
    t.equal(codec.decode(text, "value", place), value);
    const { codec: tags, data } = JSON.parse(text);
    const bytes = Buffer.from(data, "base64");
    const at = Math.floor(next() * bytes.length);
    bytes[at] = bytes[at]! ^ (1 << Math.floor(next() * 8));
    const changed = JSON.stringify({ codec: tags, data: bytes.toString("base64") });
    t.equal(refusal(() => codec.decode(changed, "value", place))?.code, "PERDURE_DECODE");
  }
});

await t.test("a value is of its run and its slot, and of how it was made: nowhere else is it read", async (t) => {
  const codec = stored(compression({ above: 0 }), encryption(options));
  const text = codec.encode("x".repeat(500), "result", place);
  const elsewhere = [
    { run: "order-43", slot: place.slot },
    { run: place.run, slot: "step:charge/~abc#1" },
    { run: "", slot: place.run + place.slot },
  ];
  for (const other of elsewhere) {
    t.match(
      refusal(() => codec.decode(text, "result", other))?.message,
      /it was changed, comes from another run or slot/,
    );
  }
  t.equal(codec.decode(text, "result", { ...elsewhere[0]!, copiedFrom: [elsewhere[1]!, place] }), "x".repeat(500));
  const { data } = JSON.parse(text);
  for (const tags of [["encrypt:one"], ["compress:gzip", "encrypt:one"], ["compress:deflate", "encrypt:two"], []]) {
    const moved = JSON.stringify({ codec: tags, data });
    t.equal(refusal(() => codec.decode(moved, "result", place))?.code, "PERDURE_DECODE", tags.join());
  }
});

await t.test("what cannot be read says which codec or key is missing, and for which run and slot", async (t) => {
  const text = stored(encryption(options)).encode(1, 'result of step "charge"', place);
  const without = refusal(() => stored().decode(text, 'result of step "charge"', place));
  t.same(without, {
    name: "PerdureError",
    code: "PERDURE_DECODE",
    message:
      'result of step "charge": the stored value cannot be read back (it is to be "step:charge/~abc#0" of run "order-42"): codec "encrypt" wrote it, and this engine has none of that name: add it to `codec`',
  });
  const other = encryption({ keys: { ones: two }, current: "ones", hashKey });
  t.match(
    refusal(() => stored(other).decode(text, "v", place))?.message,
    /key "one" is not among the keys of encryption\(\) \(they are "ones"\)$/,
  );
  t.match(refusal(() => stored().decode('{"codec":["a"],"data":7}', "v", place))?.message, /it is malformed/);
  t.match(refusal(() => stored().decode('{"codec":[', "v", place))?.message, /v: the stored value cannot be read back/);
});

await t.test(
  "keys may be bytes, base64, key objects, or come from a function; what `keys` holds is read, `current` writes",
  async (t) => {
    const text = stored(encryption(options)).encode(1, "v", place);
    for (const key of [new Uint8Array(one), one.toString("base64"), createSecretKey(one)]) {
      t.equal(stored(encryption({ keys: { one: key }, current: "one", hashKey })).decode(text, "v", place), 1);
    }
    const rotated = stored(
      encryption({ keys: (id) => ({ one, two })[id], current: "two", hashKey: hashKey.toString("base64") }),
    );
    t.equal(rotated.decode(text, "v", place), 1);
    t.match(rotated.encode(1, "v", place), '{"codec":["encrypt:two"]');
    const mixed = encryption({ keys: { one: two }, current: "one", hashKey });
    t.match(refusal(() => stored(mixed).decode(text, "v", place))?.message, /key "one" is not the one/);
    t.not(text, stored(encryption(options)).encode(1, "v", place), "no two are alike");
  },
);

await t.test(
  "plain values are read unless refused; with no current key yet, values and hashes are written as before",
  async (t) => {
    const plain = stored().encode("old", "v", place);
    t.equal(stored(encryption(options)).decode(plain, "v", place), "old");
    const strict = stored(compression({ above: 0 }), encryption({ ...options, plaintext: "refuse" }));
    const packed = stored(compression({ above: 0 })).encode("x".repeat(100), "v", place);
    for (const text of [plain, packed]) {
      t.match(refusal(() => strict.decode(text, "v", place))?.message, /codec "encrypt" did not write it/);
    }
    const reader = stored(encryption({ ...options, current: null }));
    t.equal(reader.encode("new", "v", place), stored().encode("new", "v", place));
    t.equal(reader.hash(["a"]), stored().hash(["a"]));
    t.equal(reader.decode(stored(encryption(options)).encode("new", "v", place), "v", place), "new");
  },
);

await t.test(
  "golden vectors: keyed and plain hashes of arguments, and a stored value, are what they were",
  async (t) => {
    const keyed = stored(encryption(options));
    const args = ["order-42", { amount: 99, items: [1, 2.5, null, true], note: "é\ud800\u0000" }];
    t.equal(stored().hash(args), "E1wGzL2fCai6xJUI");
    t.equal(keyed.hash(args), KEYED);
    t.equal(keyed.hash(args, undefined, true), KEYED, "a run that began with a key keeps to it");
    t.equal(keyed.hash(args, undefined, false), "E1wGzL2fCai6xJUI", "one that began before, to the plain one");
    const first = stored(encryption({ ...options, current: null }));
    t.equal(first.hash(args), "E1wGzL2fCai6xJUI", "the first of two deploys writes none with a key");
    t.equal(first.hash(args, undefined, true), KEYED, "and knows those of the second");
    const derived = stored(encryption({ keys: { one, two }, current: "two" }));
    t.equal(derived.hash(args), stored(encryption({ keys: { two }, current: "two", hashKey: one })).hash(args));
    t.equal(keyed.hash([{ long: ["x".repeat(2_000)] }]), KEYED_LONG);
    t.not(stored(encryption({ ...options, hashKey: Buffer.alloc(32, 8) })).hash(args), keyed.hash(args));
    t.equal(
      stored(encryption({ ...options, current: "two" })).hash(args),
      keyed.hash(args),
      "the hash key does not rotate",
    );
    t.same(keyed.decode(GOLDEN, "v", place), { amount: 99n });
  },
);

await t.test(
  "compression leaves alone what is small or does not shrink, and stores less than what it was given",
  async (t) => {
    const codec = stored(compression());
    const plain = stored();
    for (const value of ["short", randomBytes(4000).toString("base64")]) {
      t.equal(codec.encode(value, "v", place), plain.encode(value, "v", place));
    }
    const orders = Array.from({ length: 50 }, (_, n) => ({ sku: `SKU-${n}`, title: "Blue shirt", price: n * 1.25 }));
    t.ok(codec.encode(orders, "v", place).length < plain.encode(orders, "v", place).length / 2);
    const bomb = stored(compression({ above: 0 })).encode("x".repeat(900_000), "v", place);
    t.ok(bomb.length < 6000);
    const { data } = JSON.parse(bomb);
    const twice = JSON.stringify({ codec: ["compress:deflate", "compress:deflate"], data });
    t.match(refusal(() => codec.decode(twice, "v", place))?.message, /a codec stands twice in it/);
    const note = JSON.stringify({ codec: ["compress:lzma"], data: "" });
    t.match(
      refusal(() => codec.decode(note, "v", place))?.message,
      /compressed by "lzma", which this version does not know/,
    );
  },
);

await t.test("a codec that throws refuses the value, and its own errors are told", async (t) => {
  const broken: Codec = {
    name: "kms",
    encode: () => {
      throw new Error("the key service is away");
    },
    decode: ({ data }) => data,
  };
  t.same(
    refusal(() => stored(broken).encode(1, 'input of workflow "order"', place)),
    {
      name: "PerdureError",
      code: "PERDURE_SERIALIZE",
      message: 'input of workflow "order": codec "kms" could not encode it: the key service is away',
    },
  );
  const short: Codec = { name: "short", encode: () => null, decode: ({ data }) => data, hash: () => "abc" };
  t.match(
    refusal(() => stored(short).hash([1]))?.message,
    /hash\(\) of codec "short" must return at least 16 characters/,
  );
});

await t.test("what is handed in wrongly is refused, and no key is shown", async (t) => {
  const wrong: [() => unknown, RegExp][] = [
    [
      () => encryption({ ...options, current: "too" }),
      /current of encryption\(\): key "too" is not among the keys .*; did you mean "two"\?/,
    ],
    [
      () => encryption({ ...options, keys: { one: Buffer.alloc(16) } }),
      /key "one" of encryption\(\) must be a key of 32 bytes, not of 16/,
    ],
    [
      () => encryption({ ...options, keys: { one: "not base64!" } }),
      /key "one" of encryption\(\) must be a key of 32 bytes:/,
    ],
    [() => encryption({ ...options, hashKey: 7 as never }), /hashKey of encryption\(\) must be a key/],
    [() => encryption({ keys: () => one, current: "one" }), /encryption\(\) needs a hashKey/],
    [() => encryption({ ...options, keys: [one] as never }), /keys of encryption\(\) must be an object/],
    [() => encryption({ ...options, current: null, plaintext: "refuse" }), /while current is null/],
    [() => encryption({ ...options, plaintext: "deny" as never }), /plaintext of encryption\(\)/],
    [() => encryption({ ...options, curent: "one" } as never), /did you mean "current"/],
    [() => compression({ method: "lzma" as never }), /method of compression\(\)/],
    [() => compression({ above: -1 }), /above of compression\(\)/],
    [() => checkCodecs(encryption as never, "codec of new Perdure()"), /which needs the functions encode and decode/],
    [() => checkCodecs([compression(), compression()], "codec"), /codec holds two named "compress"/],
    [
      () => checkCodecs([encryption(options), { ...encryption(options), name: "again" }], "codec"),
      /"encrypt" and "again" both have a hash/,
    ],
    [
      () => stored({ ...compression(), encode: async () => null } as never).encode(1, "v", place),
      /encode\(\) must return null or/,
    ],
    [
      () => stored({ ...compression(), encode: () => ({ data: "text" }) } as never).encode(1, "v", place),
      /and no promise/,
    ],
    [
      () => stored({ ...compression(), encode: () => ({ data: one, note: "n".repeat(256) }) }).encode(1, "v", place),
      /note of its encode\(\) must be a text of at most 255 bytes/,
    ],
    [() => checkCodecs({ ...compression(), name: "Zip:1" }, "codec"), /needs a name of lower-case letters/],
    [() => checkCodecs({ name: "a" } as never, "codec"), /needs the functions encode and decode/],
    [() => checkCodecs({ ...compression(), plaintext: "no" } as never, "codec"), /neither "accept" nor "refuse"/],
    [() => new Perdure({ codec: null as never }), /codec of new Perdure\(\) holds null/],
  ];
  for (const [call, message] of wrong) {
    const refused = refusal(call);
    t.match(refused?.message, message);
    t.match(String(refused?.code), /^PERDURE_(OPTION|DUPLICATE|SERIALIZE)$/);
    t.notMatch(refused?.message, one.toString("base64").slice(0, 8));
  }
  const lacks = Number(process.versions.node.split(".")[0]) < 22;
  if (lacks) t.match(refusal(() => compression({ method: "zstd" }))?.message, /is not in Node/);
});
