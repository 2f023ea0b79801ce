/** The legality table of a run's states, pair by pair. */
import t from "tap";
import { isTerminal, RUN_STATES, TERMINAL_STATES, TRANSITIONS } from "../../lib/core/states.ts";

// Rows: from; columns: to, both in the order of RUN_STATES. x: legal.
const LEGAL = `
            pending running suspended paused blocked completed failed cancelled
  pending      .       x        .        x      x        .        .       x
  running      x       .        x        x      x        x        x       x
  suspended    x       x        .        x      .        .        .       x
  paused       x       .        .        .      .        .        .       x
  blocked      x       .        .        .      .        .        .       x
  completed    .       .        .        .      .        .        .       .
  failed       x       .        .        .      .        .        .       .
  cancelled    .       .        .        .      .        .        .       .
`;

const [head, ...rows] = LEGAL.trim()
  .split("\n")
  .map((line) => line.trim().split(/\s+/));

await t.test("the states are those of the design, in the order of a run's life", async (t) => {
  t.strictSame(RUN_STATES, head);
  t.strictSame(Object.keys(TRANSITIONS), head);
  t.strictSame(
    rows.map(([from]) => from),
    head,
  );
});

await t.test("a run goes from one state to another exactly where the table says so, for a reason", async (t) => {
  for (const [i, from] of RUN_STATES.entries()) {
    for (const [j, to] of RUN_STATES.entries()) {
      const reason = TRANSITIONS[from][to];
      t.equal(reason !== undefined, rows[i]?.[j + 1] === "x", `${from} → ${to}: ${reason ?? "never"}`);
      t.not(reason, "", `${from} → ${to} has a reason`);
    }
  }
});

await t.test("completed, failed and cancelled are terminal, and only a failed run goes on", async (t) => {
  t.strictSame(TERMINAL_STATES, ["completed", "failed", "cancelled"]);
  t.strictSame(RUN_STATES.filter(isTerminal), TERMINAL_STATES);
  const left = TERMINAL_STATES.filter((state) => Object.keys(TRANSITIONS[state]).length > 0);
  t.strictSame(left, ["failed"]);
});

await t.test(
  "every state can be reached from pending, and every state that is not terminal can be cancelled",
  async (t) => {
    const reached = new Set<string>(["pending"]);
    for (const from of reached) for (const to of Object.keys(TRANSITIONS[from as "pending"])) reached.add(to);
    t.strictSame([...reached].sort(), [...RUN_STATES].sort());
    for (const state of RUN_STATES.filter((state) => !isTerminal(state))) t.ok(TRANSITIONS[state].cancelled, state);
  },
);
