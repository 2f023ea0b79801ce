/** The database's clock as a process knows it: how it takes answers that are late, and a clock that was set back. */
import { test } from "tap";
import { DatabaseClock } from "../../lib/core/clock.ts";

const YEAR_MS = 365 * 86_400_000;
const here = (): number => performance.now();

test("the clock follows the earliest answer, and never goes back", (t) => {
  const clock = new DatabaseClock();
  t.ok(Math.abs(clock.now() - Date.now()) < 1000, "before any answer: this machine's clock");
  const base = Date.now() + YEAR_MS - here();
  clock.observe(base + here() - 40);
  clock.observe(base + here());
  clock.observe(base + here() - 500);
  t.ok(clock.now() >= base + here() - 1, "an answer that was late changes nothing");
  const before = clock.now();
  clock.observe(base + here() - 5000);
  t.ok(clock.now() >= before && clock.now() >= base + here() - 1, "nor does one that was very late");
  t.end();
});

test("a machine whose clock is ahead follows the database from its first answer, though it was asked before", (t) => {
  const clock = new DatabaseClock();
  const ahead = clock.now();
  clock.observe(ahead - 7_200_000);
  t.ok(clock.now() < ahead - 7_100_000, "what it said before binds it to nothing");
  t.end();
});

test("a clock that was set back is believed once three answers in a row say so", (t) => {
  const clock = new DatabaseClock();
  const base = Date.now() + YEAR_MS - here();
  const before = base + here();
  clock.observe(before);
  for (const late of [60_000, 60_000]) clock.observe(base + here() - late);
  clock.observe(base + here());
  for (const late of [60_000, 60_000]) clock.observe(base + here() - late);
  t.ok(clock.now() >= before, "not in a row");
  const stood = clock.now();
  clock.observe(base + here() - 60_000);
  t.ok(clock.now() - stood < 10, "it stands until the new time has caught up");
  clock.observe(base + here() + 1);
  t.ok(clock.now() >= base + here() - 1, "and an answer of the old time is believed at once");
  t.end();
});
