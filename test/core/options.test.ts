/** Option keys, names and whole numbers: what is accepted, and the exact words in which the rest is refused. */
import t from "tap";
import { checkInteger, checkKeys, checkName, checkSchemaName, nearest, shorten } from "../../lib/core/options.ts";
import { refusal } from "../support/refusal.ts";

await t.test("nearest finds what a slip of the fingers meant, and nothing where nothing is near", async (t) => {
  const options = ["name", "retry", "timeout", "input", "output", "onCrash"];
  const cases: [string, readonly string[], string | undefined][] = [
    ["retires", options, "retry"],
    ["rerty", options, "retry"],
    ["TIMEOUT", options, "timeout"],
    ["timeoutMs", options, "timeout"],
    ["oncrash", options, "onCrash"],
    ["nmae", options, "name"],
    ["put", options, "input"],
    ["retry", options, "retry"],
    ["concurrency", options, undefined],
    ["", options, undefined],
    ["retryPolicy", options, "retry"],
    ["order", ["process-order"], "process-order"],
    ["no", ["on"], "on"],
    ["up", ["on"], undefined],
    ["2", ["1"], undefined],
    ["order", ["process-order", "order2"], "order2"],
    ["cat", ["bat", "hat"], "bat"],
    ["x".repeat(5000), options, undefined],
    ["anything", [], undefined],
  ];
  for (const [word, candidates, meant] of cases) t.equal(nearest(word, candidates), meant, word.slice(0, 20));
});

await t.test("an option that nobody reads is refused with the one that was meant", async (t) => {
  class Options {}
  const known = ["name", "retry"];
  const cases: [unknown, readonly string[], string][] = [
    [{ name: "x", retires: 3 }, known, 'unknown option "retires" of step "x"; did you mean "retry"?'],
    [{ retires: undefined }, known, 'unknown option "retires" of step "x"; did you mean "retry"?'],
    [{ color: "red" }, known, 'unknown option "color" of step "x"; it takes name, retry'],
    [{ name: "x" }, [], 'unknown option "name" of step "x"; it takes no options'],
    [JSON.parse('{"__proto__": 1}'), known, 'unknown option "__proto__" of step "x"; it takes name, retry'],
    [{ constructor: 1 }, known, 'unknown option "constructor" of step "x"; it takes name, retry'],
    [null, known, 'options of step "x" must be a plain object, not null'],
    [undefined, known, 'options of step "x" must be a plain object, not undefined'],
    ["name", known, 'options of step "x" must be a plain object, not "name"'],
    [["name"], known, `options of step "x" must be a plain object, not [ 'name' ]`],
    [new Options(), known, 'options of step "x" must be a plain object, not Options {}'],
    [new Map(), known, 'options of step "x" must be a plain object, not Map(0) {}'],
    [() => 1, known, 'options of step "x" must be a plain object, not [Function (anonymous)]'],
  ];
  for (const [given, keys, message] of cases) {
    t.strictSame(
      refusal(() => checkKeys(given, keys, 'step "x"')),
      { name: "PerdureError", code: "PERDURE_OPTION", message },
      message,
    );
  }
});

await t.test("known options pass, on any plain object", async (t) => {
  for (const given of [{}, { name: 1, retry: undefined }, Object.assign(Object.create(null), { name: 1 })]) {
    t.doesNotThrow(() => checkKeys(given, ["name", "retry"], 'step "x"'));
  }
});

await t.test("a name of 1 to 255 bytes passes as it is", async (t) => {
  const names = [
    "x",
    "Checkout.process",
    "two words",
    "naïve/ß:\"'\\",
    "订单-42",
    "🚚",
    "x".repeat(255),
    "é".repeat(127),
  ];
  for (const name of names) t.equal(checkName(name, "step name"), name);
});

await t.test("a name that breaks the rule is refused with its value, its size and the rule", async (t) => {
  const rule =
    "it must be 1 to 255 bytes of UTF-8 text without control characters, lone surrogates or blanks at its ends";
  const cases: [unknown, string][] = [
    ["", '"" (0 bytes) is empty'],
    [" ", '" " (1 byte) is only blanks'],
    ["\t\n", '"\\t\\n" (2 bytes) is only blanks'],
    [" x", '" x" (2 bytes) begins or ends with a blank'],
    ["x\u00a0", '"x\u00a0" (3 bytes) begins or ends with a blank'],
    ["a\0b", '"a\\u0000b" (3 bytes) contains a control character'],
    ["a\u007f", '"a\\u007f" (2 bytes) contains a control character'],
    ["a\u0085b", '"a\\u0085b" (4 bytes) contains a control character'],
    ["line\nbreak", '"line\\nbreak" (10 bytes) contains a control character'],
    ["a\ud800b", '"a\\ud800b" (5 bytes) contains a lone surrogate'],
    ["x".repeat(256), `"${"x".repeat(60)}"… (256 bytes) is too long`],
    ["é".repeat(128), `"${"é".repeat(60)}"… (256 bytes) is too long`],
    [undefined, "must be a string, not undefined"],
    [42, "must be a string, not 42"],
    [{ name: "x" }, "must be a string, not { name: 'x' }"],
  ];
  for (const [name, why] of cases) {
    const message = `step name ${why}; ${rule}`;
    t.strictSame(
      refusal(() => checkName(name, "step name")),
      { name: "PerdureError", code: "PERDURE_NAME", message },
      why,
    );
  }
});

await t.test("any identifier that Postgres takes when quoted is a schema name, and nothing else is", async (t) => {
  const names = [
    "perdure",
    "My Schema",
    " x ",
    'we"ird',
    "a.b",
    "select",
    "PG_x",
    "pg",
    "ü".repeat(31),
    "x".repeat(63),
  ];
  for (const name of names) t.equal(checkSchemaName(name), name);
  const rule =
    "it must be 1 to 63 bytes of UTF-8 text without control characters or lone surrogates, not beginning with pg_";
  const cases: [unknown, string][] = [
    ["", '"" (0 bytes) is empty'],
    ["a\0", '"a\\u0000" (2 bytes) contains a control character'],
    ["\udc00", '"\\udc00" (3 bytes) contains a lone surrogate'],
    ["pg_perdure", '"pg_perdure" (10 bytes) begins with pg_, which Postgres keeps for itself'],
    ["ü".repeat(32), `"${"ü".repeat(32)}" (64 bytes) is too long`],
    [null, "must be a string, not null"],
  ];
  for (const [name, why] of cases) {
    t.strictSame(
      refusal(() => checkSchemaName(name)),
      { name: "PerdureError", code: "PERDURE_NAME", message: `schema name ${why}; ${rule}` },
      why,
    );
  }
});

await t.test("a whole number within its bounds passes, everything else is refused with the bounds", async (t) => {
  for (const value of [-32768, 0, 32767]) t.equal(checkInteger(value, "priority", -32768, 32767), value);
  t.equal(checkInteger(7, "limit", 1, Infinity), 7);
  const within = "priority must be a whole number from -32768 to 32767, not";
  const cases: [unknown, string][] = [
    [32768, `${within} 32768`],
    [-32769, `${within} -32769`],
    [1.5, `${within} 1.5`],
    ["5", `${within} "5"`],
    [5n, `${within} 5n`],
    [Number.NaN, `${within} NaN`],
    [undefined, `${within} undefined`],
  ];
  for (const [value, message] of cases) {
    t.strictSame(
      refusal(() => checkInteger(value, "priority", -32768, 32767)),
      { name: "PerdureError", code: "PERDURE_OPTION", message },
      message,
    );
  }
  const message = "limit must be a whole number of at least 1, not Infinity";
  t.strictSame(
    refusal(() => checkInteger(Infinity, "limit", 1, Infinity)),
    { name: "PerdureError", code: "PERDURE_OPTION", message },
  );
});

await t.test("a value in a message is quoted, escaped, and cut between characters", async (t) => {
  const cases: [unknown, string][] = [
    ['say "hi"\\', '"say \\"hi\\"\\\\"'],
    ["zero\u200bwidth", '"zero\\u200bwidth"'],
    ["\u{e0001}", '"\\u{e0001}"'],
    ["x".repeat(60), `"${"x".repeat(60)}"`],
    [`${"x".repeat(58)}\0`, `"${"x".repeat(58)}"…`],
    [`${"x".repeat(59)}🚚`, `"${"x".repeat(59)}"…`],
    ["x".repeat(1e6), `"${"x".repeat(60)}"…`],
    [-0, "-0"],
    [Symbol("s"), "Symbol(s)"],
    [{ a: { b: { c: 1 } } }, "{ a: { b: [Object] } }"],
    [Array.from({ length: 99 }, () => 1), "[ 1, 1, 1, 1, 1, ... 94 more items ]"],
    [{ text: "x".repeat(99) }, `{ text: '${"x".repeat(51)}…`],
  ];
  for (const [value, shown] of cases) t.equal(shorten(value), shown, shown);
});
