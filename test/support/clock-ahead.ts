/** Loaded before everything else: the clock of this process is ahead of the machine's by PERDURE_TEST_AHEAD_MS. What is monotonic stays. */
const AHEAD_MS = Number(process.env.PERDURE_TEST_AHEAD_MS ?? 0);
const Machine = Date;
const now = (): number => Machine.now() + AHEAD_MS;

const Ahead = new Proxy(Machine, {
  get: (target, key) => (key === "now" ? now : Reflect.get(target, key)),
  apply: () => new Machine(now()).toString(),
  construct: (target, given, made) => Reflect.construct(target, given.length === 0 ? [now()] : given, made),
});
Machine.prototype.constructor = Ahead;
globalThis.Date = Ahead;
