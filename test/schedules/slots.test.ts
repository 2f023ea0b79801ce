/** When a schedule fires: against a brute-force oracle, and by cases that a person can check. */
import { test } from "tap";
import { nextSlot, slotsUntil, type Timing } from "../../lib/schedule/slots.ts";
import { checkTiming } from "../../lib/schedule/timing.ts";
import { refusal } from "../support/refusal.ts";
import { changesBetween, firings, minutesOf, type Spec } from "./oracle.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
/** Every zone over forty years, which takes minutes. */
const LONG = process.env.PERDURE_LONG_SCHEDULES === "1";

// Where clocks do the unusual: half hours, two hours, midnight, whole days, Ramadan, the southern half of the year.
const ZONES = (
  "UTC Europe/Berlin Europe/London Europe/Dublin Europe/Lisbon Europe/Chisinau Europe/Kyiv Europe/Moscow Atlantic/Azores Atlantic/Canary " +
  "America/New_York America/Chicago America/Denver America/Los_Angeles America/Anchorage America/Adak America/St_Johns America/Halifax " +
  "America/Havana America/Asuncion America/Santiago America/Punta_Arenas America/Nuuk America/Scoresbysund America/Miquelon " +
  "America/Port-au-Prince America/Tijuana America/Sao_Paulo America/Caracas America/Mexico_City Africa/Casablanca Africa/El_Aaiun Africa/Cairo " +
  "Africa/Lagos Africa/Juba Asia/Beirut Asia/Gaza Asia/Hebron Asia/Jerusalem Asia/Tehran Asia/Kathmandu Asia/Kolkata Asia/Pyongyang Asia/Tokyo " +
  "Australia/Lord_Howe Australia/Sydney Australia/Adelaide Pacific/Auckland Pacific/Chatham Pacific/Apia Pacific/Easter Pacific/Norfolk Antarctica/Troll"
).split(" ");

const SPECS: Spec[] = [
  { cron: "30 2 * * *", everyHour: false, matches: (h, m) => h === 2 && m === 30 },
  { cron: "0 0 * * *", everyHour: false, matches: (h, m) => h === 0 && m === 0 },
  { cron: "15,45 0-3 * * *", everyHour: false, matches: (h, m) => h <= 3 && (m === 15 || m === 45) },
  { cron: "0 1 * * SUN", everyHour: false, matches: (h, m, weekday) => weekday === 0 && h === 1 && m === 0 },
  {
    cron: "5 22-23,1 1-7 * *",
    everyHour: false,
    matches: (h, m, _, d) => d <= 7 && m === 5 && [22, 23, 1].includes(h),
  },
  { cron: "*/15 * * * *", everyHour: true, matches: (_, m) => m % 15 === 0 },
  { cron: "40 * * * *", everyHour: true, matches: (_, m) => m === 40 },
  { cron: "10 */2 * * *", everyHour: true, matches: (h, m) => h % 2 === 0 && m === 10 },
];

function checkWindow(zone: string, from: number, to: number): string[] {
  const walls = minutesOf(zone, from, to);
  return SPECS.flatMap((spec) => {
    const expected = firings(spec, from, walls);
    const found: number[] = [];
    const timing: Timing = { cron: spec.cron, timezone: zone };
    for (let at = nextSlot(timing, from - 1); at <= to; at = nextSlot(timing, at)) found.push(at);
    const show = (times: number[]): string => times.map((at) => new Date(at).toISOString()).join(" ");
    return show(found) === show(expected) ? [] : [`${zone} ${spec.cron}: ${show(found)} for ${show(expected)}`];
  });
}

test("every slot is what a walk through all minutes finds, in 50 zones over 10 years of changed clocks", (t) => {
  const zones = LONG ? Intl.supportedValuesOf("timeZone") : ZONES;
  const [first, last] = LONG ? [2000, 2040] : [2026, 2036];
  const wrong: string[] = [];
  let windows = 0;
  for (const zone of zones) {
    const changes = changesBetween(zone, Date.UTC(first, 0, 1), Date.UTC(last, 0, 1));
    // A day without a change, too.
    for (const at of [...changes, Date.UTC(2029, 5, 15, 12)]) {
      wrong.push(...checkWindow(zone, at - 9 * HOUR, at + 9 * HOUR));
      windows += 1;
    }
  }
  t.ok(windows > 600, `${windows} windows`);
  t.same(wrong, []);
  t.end();
});

test("a day that a zone left out fires once, at the change, and so does a changed half hour", (t) => {
  const windows: [zone: string, change: number][] = [
    ["Pacific/Apia", Date.UTC(2011, 11, 30, 10)],
    ["Pacific/Kwajalein", Date.UTC(1993, 7, 21, 12)],
    ["Pacific/Kiritimati", Date.UTC(1994, 11, 31, 10)],
    ["Asia/Pyongyang", Date.UTC(2018, 4, 4, 15)],
    ["America/Caracas", Date.UTC(2016, 4, 1, 7)],
    ["Europe/Istanbul", Date.UTC(2015, 10, 8, 1)],
  ];
  for (const [zone, change] of windows) t.same(checkWindow(zone, change - 30 * HOUR, change + 30 * HOUR), [], zone);
  const missing = nextSlot({ cron: "0 9 30 12 *", timezone: "Pacific/Apia" }, Date.UTC(2011, 11, 29));
  t.equal(new Date(missing).toISOString(), "2011-12-30T10:00:00.000Z");
  t.end();
});

/** The next slots, in UTC, as text. */
function next(cron: string, timezone: string, after: string, count: number): string[] {
  const slots: string[] = [];
  for (let at = Date.parse(after); slots.length < count; ) {
    at = nextSlot({ cron, timezone }, at);
    slots.push(new Date(at).toISOString().replace(".000Z", "Z"));
  }
  return slots;
}

test("cron fields mean what cron says they mean", (t) => {
  const cases: [cron: string, after: string, ...slots: string[]][] = [
    ["*/20 * * * * *", "2027-01-01T00:00:00Z", "2027-01-01T00:00:20Z", "2027-01-01T00:00:40Z", "2027-01-01T00:01:00Z"],
    ["30 59 23 31 DEC *", "2027-01-01T00:00:00Z", "2027-12-31T23:59:30Z", "2028-12-31T23:59:30Z"],
    ["0 9 * * mon-FRI", "2027-01-01T09:00:00Z", "2027-01-04T09:00:00Z", "2027-01-05T09:00:00Z"],
    ["0 0 * * 7", "2027-01-01T00:00:00Z", "2027-01-03T00:00:00Z", "2027-01-10T00:00:00Z"],
    ["0 0 * * 5-7", "2027-01-04T00:00:00Z", "2027-01-08T00:00:00Z", "2027-01-09T00:00:00Z", "2027-01-10T00:00:00Z"],
    ["0 0 13 * FRI", "2027-08-01T00:00:00Z", "2027-08-06T00:00:00Z", "2027-08-13T00:00:00Z", "2027-08-20T00:00:00Z"],
    ["0 0 L * *", "2028-02-01T00:00:00Z", "2028-02-29T00:00:00Z", "2028-03-31T00:00:00Z", "2028-04-30T00:00:00Z"],
    ["0 0 * * 5L", "2027-01-01T00:00:00Z", "2027-01-29T00:00:00Z", "2027-02-26T00:00:00Z"],
    ["0 0 * * TUE#2", "2027-01-01T00:00:00Z", "2027-01-12T00:00:00Z", "2027-02-09T00:00:00Z"],
    ["0 0 31 * *", "2027-01-31T00:00:00Z", "2027-03-31T00:00:00Z", "2027-05-31T00:00:00Z"],
    ["0 0 * FEB MON#5", "2027-01-01T00:00:00Z", "2044-02-29T00:00:00Z", "2072-02-29T00:00:00Z", "2112-02-29T00:00:00Z"],
    ["0 0 29 2 *", "2027-01-01T00:00:00Z", "2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"],
    ["0 0 29 2 *", "2092-03-01T00:00:00Z", "2096-02-29T00:00:00Z", "2104-02-29T00:00:00Z"],
  ];
  for (const [cron, after, ...slots] of cases) t.same(next(cron, "UTC", after, slots.length), slots, cron);
  t.end();
});

test("a skipped time fires once at the change, a doubled one the first time, or both times where every hour counts", (t) => {
  const spring = "2027-03-14T06:00:00Z";
  const autumn = "2027-11-07T05:15:00Z";
  const york = "America/New_York";
  t.same(next("30 2 * * *", york, spring, 2), ["2027-03-14T07:00:00Z", "2027-03-15T06:30:00Z"]);
  t.same(next("*/20 2 * * *", york, spring, 2), ["2027-03-14T07:00:00Z", "2027-03-15T06:00:00Z"]);
  t.same(next("30 1 * * *", york, autumn, 2), ["2027-11-07T05:30:00Z", "2027-11-08T06:30:00Z"]);
  t.same(next("30 * * * *", york, autumn, 3), ["2027-11-07T05:30:00Z", "2027-11-07T06:30:00Z", "2027-11-07T07:30:00Z"]);
  // Asked from within the second pass.
  t.same(next("30 1 * * *", york, "2027-11-07T06:10:00Z", 1), ["2027-11-08T06:30:00Z"]);
  // Asked a millisecond before the change.
  t.same(next("30 2 * * *", york, "2027-03-14T06:59:59.999Z", 1), ["2027-03-14T07:00:00Z"]);
  t.same(next("30 0 * * *", "America/Havana", "2027-11-07T03:00:00Z", 2), [
    "2027-11-07T04:30:00Z",
    "2027-11-08T05:30:00Z",
  ]);
  t.same(next("15 2 * * *", "Australia/Lord_Howe", "2027-10-02T00:00:00Z", 2), [
    "2027-10-02T15:30:00Z",
    "2027-10-03T15:15:00Z",
  ]);
  t.end();
});

test("an interval counts from its anchor, and its slots do not depend on who asks when", (t) => {
  const timing = { everyMs: 90_000, anchor: 1_000_000_000_123 };
  t.equal(nextSlot(timing, timing.anchor), timing.anchor + 90_000);
  t.equal(nextSlot(timing, timing.anchor - DAY), timing.anchor + 90_000, "never before its first");
  t.equal(nextSlot(timing, timing.anchor + 90_000), timing.anchor + 180_000);
  t.equal(nextSlot(timing, timing.anchor + 89_999.999), timing.anchor + 90_000);
  t.same(slotsUntil(timing, timing.anchor + 90_000, timing.anchor + 400_000, 100).length, 4);
  t.end();
});

test("of many slots that are due the last are found without counting them all", (t) => {
  const now = Date.UTC(2027, 5, 1, 12);
  const everySecond: Timing = { cron: "* * * * * *", timezone: "UTC" };
  t.same(slotsUntil(everySecond, now - 400 * DAY, now, 2), [now - 1000, now]);
  t.same(slotsUntil(everySecond, now - 400 * DAY, now, 100).length, 100);
  const burst: Timing = { cron: "* * * 1 1 *", timezone: "UTC" };
  t.same(slotsUntil(burst, Date.UTC(2020, 0, 1), now, 1), [Date.UTC(2027, 0, 1, 23, 59, 59)]);
  const rare: Timing = { cron: "0 0 29 2 *", timezone: "UTC" };
  t.same(slotsUntil(rare, Date.UTC(2024, 1, 29), now, 100), [Date.UTC(2024, 1, 29)]);
  t.same(slotsUntil(rare, Date.UTC(2028, 1, 29), now, 100), []);
  t.end();
});

test("a bad cron, zone or interval is refused in words that name the field and what was meant", (t) => {
  const says = (timing: object): unknown => refusal(() => checkTiming(timing, 'schedule "s"'))?.message;
  const cron = (expression: unknown): unknown => says({ cron: expression });
  t.match(cron(""), /^cron of schedule "s" is "", which is no cron expression; write 5 fields/);
  t.match(cron(5), /is 5, which is no cron expression/);
  t.match(cron("* * * *"), /has 4 fields; write 5 fields/);
  t.match(cron("* * * * * * *"), /has 7 fields/);
  t.match(cron("@daily"), /is a shorthand; write "0 0 \* \* \*"/);
  t.match(cron("60 * * * *"), /has the minute "60", which cannot be: got value 60 expected range 0-59/);
  t.match(cron("0 24 * * *"), /has the hour "24"/);
  t.match(cron("0 0 0 * *"), /has the day of month "0"/);
  t.match(cron("0 0 * 13 *"), /has the month "13"/);
  t.match(cron("0 0 * * 8"), /has the day of week "8"/);
  t.match(cron("61 0 0 * * *"), /has the second "61"/);
  t.match(cron("0 0 * * MOM"), /has the day of week "MOM", which is not understood; .*MON/);
  t.match(cron("0 0 * FOO *"), /has the month "FOO", which is not understood/);
  t.match(cron("H * * * *"), /has the minute "H", and H is not taken/);
  t.match(cron("0 0 ? * 1"), /has the day of month "\?", and \? is not taken/);
  t.match(cron("10-5 * * * *"), /has the minute "10-5", which cannot be/);
  t.match(cron("*/0 * * * *"), /whose step is 0/);
  t.match(cron("*/90 * * * *"), /whose step of 90 is no less than the 60 values there are; for intervals use `every`/);
  for (const odd of [
    "-5 * * * *",
    "1.5 * * * *",
    "1,,2 * * * *",
    "0 0 LW * *",
    "0 0 L-3 * *",
    "0 0 * * L",
    "+5 * * * *",
    "5- * * * *",
    "* * * * *\0",
  ]) {
    t.match(cron(odd), /not understood/, odd);
  }
  for (const never of ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *"]) {
    t.match(cron(never), /never fires: its day of month "3[01]" never comes in its month "2/, never);
  }
  const zone = (timezone: unknown): unknown => says({ cron: "0 0 * * *", timezone });
  t.match(zone("Europe/Berln"), /timezone of schedule "s" is "Europe\/Berln", .* did you mean "Europe\/Berlin"\?/);
  t.match(zone("+02:00"), /is no time zone of the IANA database; write one such as/);
  t.match(zone(3), /is 3, which is no time zone/);
  t.match(says({ every: "999ms" }), /every of schedule "s" must be at least 1s/);
  t.match(says({ every: 1000.5 }), /whole milliseconds/);
  t.match(says({ every: -1 }), /negative/);
  t.match(says({ every: "1h", cron: "* * * * *" }), /either cron or every/);
  t.match(says({}), /either cron or every/);
  t.match(says({ every: "1h", timezone: "UTC" }), /timezone .* belongs to cron/);
  t.end();
});
