/** Durations: every spelling gives its milliseconds, everything else is refused with what to write. */
import t from "tap";
import { type Duration, MAX_DURATION, toMs } from "../../lib/core/duration.ts";
import { refusal } from "../support/refusal.ts";

const HELP = 'write milliseconds, a string such as "250ms", "30m" or "1h30m", or an object such as { minutes: 30 }';
const WHAT = 'timeout of step "x"';

await t.test("every spelling of a duration gives its milliseconds", async (t) => {
  const cases: [Duration, number][] = [
    [0, 0],
    [-0, 0],
    [1500, 1500],
    [0.25, 0.25],
    ["0s", 0],
    ["250ms", 250],
    ["1s", 1_000],
    ["30m", 1_800_000],
    ["1.5h", 5_400_000],
    ["2d", 172_800_000],
    ["1h30m", 5_400_000],
    ["1m1ms", 60_001],
    ["1d2h3m", 93_780_000],
    ["1d2h3m4s5ms" as Duration, 93_784_005],
    [{ minutes: 30 }, 1_800_000],
    [{ days: 1, hours: 2, minutes: 3, seconds: 4, milliseconds: 5 }, 93_784_005],
    [{ hours: 0.5, minutes: undefined }, 1_800_000],
    [{ seconds: 0 }, 0],
    ["365000d", MAX_DURATION],
    [{ days: 365_000 }, MAX_DURATION],
  ];
  for (const [duration, ms] of cases) t.equal(toMs(duration, WHAT), ms, JSON.stringify(duration));
});

await t.test("what is no duration is refused, with its value, the reason and what to write", async (t) => {
  const cases: [unknown, string][] = [
    [Number.NaN, "NaN, which is not finite"],
    [Infinity, "Infinity, which is not finite"],
    [-Infinity, "-Infinity, which is not finite"],
    [-5, "-5, which is negative"],
    [{ hours: 1, minutes: -30 }, "{ hours: 1, minutes: -30 }, which is negative"],
    [{ hours: Number.NaN }, "{ hours: NaN }, which is not finite"],
    [{ hours: "1" }, "{ hours: '1' }, which is not a duration"],
    [{ hours: null }, "{ hours: null }, which is not a duration"],
    [{}, "{}, which is not a duration"],
    [{ days: undefined }, "{ days: undefined }, which is not a duration"],
    ["", '"", which is not a duration'],
    ["30", '"30", which is not a duration'],
    ["5 minutes", '"5 minutes", which is not a duration'],
    ["1h 30m", '"1h 30m", which is not a duration'],
    ["30m1h", '"30m1h", which is not a duration'],
    ["1h1h", '"1h1h", which is not a duration'],
    ["-1s", '"-1s", which is not a duration'],
    ["1e3s", '"1e3s", which is not a duration'],
    ["1.2.3s", '"1.2.3s", which is not a duration'],
    [".5h", '".5h", which is not a duration'],
    ["1H", '"1H", which is not a duration'],
    ["1s\n", '"1s\\n", which is not a duration'],
    ["x".repeat(80), `"${"x".repeat(60)}"…, which is not a duration`],
    [undefined, "undefined, which is not a duration"],
    [null, "null, which is not a duration"],
    [true, "true, which is not a duration"],
    [5n, "5n, which is not a duration"],
    [[5], "[ 5 ], which is not a duration"],
    [new Date(0), "1970-01-01T00:00:00.000Z, which is not a duration"],
    ["365001d", '"365001d", which is longer than 365000 days'],
    [MAX_DURATION + 1, "31536000000001, which is longer than 365000 days"],
    [{ days: 365_000, milliseconds: 1 }, "{ days: 365000, milliseconds: 1 }, which is longer than 365000 days"],
  ];
  for (const [given, why] of cases) {
    const error = { name: "PerdureError", code: "PERDURE_OPTION", message: `${WHAT} is ${why}; ${HELP}` };
    t.strictSame(
      refusal(() => toMs(given as Duration, WHAT)),
      error,
      why,
    );
  }
});

await t.test("a unit that does not exist is refused with the nearest", async (t) => {
  const refused = (given: object, message: string) =>
    t.strictSame(
      refusal(() => toMs(given as Duration, WHAT)),
      { name: "PerdureError", code: "PERDURE_OPTION", message },
    );
  refused({ minute: 30 }, 'unknown option "minute" of timeout of step "x"; did you mean "minutes"?');
  refused({ hours: 1, sec: 30 }, 'unknown option "sec" of timeout of step "x"; did you mean "seconds"?');
  refused(
    { weeks: 2 },
    'unknown option "weeks" of timeout of step "x"; it takes days, hours, minutes, seconds, milliseconds',
  );
});

await t.test("a spelling that is wrong at run time is wrong at compile time too", async (t) => {
  // @ts-expect-error a word instead of a unit
  t.throws(() => toMs("5 minutes", WHAT));
  // @ts-expect-error no unit
  t.throws(() => toMs("30", WHAT));
  // @ts-expect-error a name instead of a duration
  t.throws(() => toMs("cool-down", WHAT));
  // @ts-expect-error a field that does not exist
  t.throws(() => toMs({ minute: 30 }, WHAT));
});
