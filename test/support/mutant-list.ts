/** The safeguards that `npm run mutants` takes out of a copy of the compiled code, one by one, and the tests that must turn red then. */

import type { Edit } from "./mutant.ts";

export interface Mutant extends Edit {
  /** What it does without the safeguard. */
  readonly name: string;
  /** Under dist/test: at least one test of it must fail. */
  readonly test: string;
}

/** The fence of a write that goes by itself, and of those that go together. */
const FENCE = "and r.epoch = p_epochs[1] and r.state = 'running'";
const FENCES = "join held h on h.key = g.run and h.epoch = g.epoch\n";
const HELD = "where r.key = any(p_keys) and r.state = 'running' and";

export const MUTANTS: readonly Mutant[] = [
  {
    name: "identical calls share one slot",
    file: "core/address.js",
    find: "this.#next.get(address) ?? 0",
    replace: "0",
    test: "engine/parallel.test.js",
  },
  {
    name: "all outcomes in line are handed over in one turn",
    file: "engine/pass.js",
    find: "const call = this.handover.next();",
    replace: "let call; for (let next; (next = this.handover.next()); call = next) if (call) this.#calls.done(call);",
    test: "engine/parallel.test.js",
  },
  {
    name: "recorded outcomes are handed over in the order of the calls",
    file: "engine/history.js",
    find: "this.#called[at - 1] > place",
    replace: "false",
    test: "engine/parallel.test.js",
  },
  {
    name: "what is new begins before replay is quiescent",
    file: "engine/pass.js",
    find: "const diverges = !this.#flexible && ",
    replace: "const diverges = false && ",
    test: "engine/divergence.test.js",
  },
  {
    name: "a checkpoint is written whatever the epoch of its claim",
    file: "db/committed.js",
    find: FENCE,
    replace: FENCE.replace("and r.epoch = p_epochs[1] ", ""),
    test: "db/batches.test.js",
  },
  {
    name: "a checkpoint is written to a run that nobody runs",
    file: "db/committed.js",
    find: FENCE,
    replace: FENCE.replace(" and r.state = 'running'", ""),
    test: "db/batches.test.js",
  },
  {
    name: "checkpoints are written whatever the epochs of their claims",
    file: "db/committed.js",
    find: FENCES,
    replace: FENCES.replace(" and h.epoch = g.epoch", ""),
    test: "db/batches.test.js",
  },
  {
    name: "checkpoints are written to runs that nobody runs",
    file: "db/committed.js",
    find: HELD,
    replace: HELD.replace(" and r.state = 'running'", ""),
    test: "db/batches.test.js",
  },
  {
    name: "a run is given up whatever its mail counter says",
    file: "db/committed.js",
    find: "h.mail <> g.mail as mailed",
    replace: "false as mailed",
    test: "events/held.test.js",
  },
  {
    name: "a run whose end was there before the wait for it raises no mail counter",
    file: "db/committed.js",
    find: "where r.key in (select run from own where ord = any(v_ended))",
    replace: "where false",
    test: "children/children.test.js",
  },
  {
    name: "a child expires while its parent may ask for its end",
    file: "db/committed.js",
    find: "exit when v_needed is null;\n    v_keys := array(",
    replace: "exit;\n    v_keys := array(",
    test: "retention/retention.test.js",
  },
  {
    name: "an end is told to a run that has expired, for ever",
    file: "db/committed.js",
    find: "and exists (select from :SCHEMA.run r where r.key = n.follower)",
    replace: "",
    test: "retention/retention.test.js",
  },
  {
    name: "a run is looked for before its history is read, and not after",
    file: "client/handle.js",
    find: "return known.length > 0 ? entries : notFound(id);",
    replace: "return entries;",
    test: "retention/retention.test.js",
  },
  {
    name: "one row by itself is written whatever the epoch of its claim",
    file: "db/swift.js",
    find: "where r.key = $1 and r.epoch = $2 and r.state = 'running'",
    replace: "where r.key = $1 and r.state = 'running'",
    test: "db/swift.test.js",
  },
  {
    name: "one row by itself is written to a run that nobody runs",
    file: "db/swift.js",
    find: "where r.key = $1 and r.epoch = $2 and r.state = 'running'",
    replace: "where r.key = $1 and r.epoch = $2",
    test: "db/swift.test.js",
  },
  {
    name: "a transaction whose commit has no answer is run again, and nobody looks whether it took effect",
    file: "db/transactor.js",
    find: "const settled = lost ? await this.#settle(once, over) : undefined;",
    replace: "const settled = undefined;",
    test: "crash/points.test.js",
  },
  {
    name: "the children of a cancelled run go on",
    file: "db/committed.js",
    find: "on c.open_parent = t.key where t.open and not c.detached",
    replace: "on false",
    test: "model/model.test.js",
  },
];

/** What a test file needs to be told, in order to come to the same each time. */
export const TOLD: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  "model/model.test.js": { PERDURE_MODEL: "chosen" },
  "crash/points.test.js": { PERDURE_POINTS: 'cut after "commit"' },
};
