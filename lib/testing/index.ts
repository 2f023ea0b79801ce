/** `perdure/testing`: what tests of workflows need. The public names, nothing else. */
export { type TestBench, type TestPerdureOptions, testPerdure } from "./bench.ts";
export type { CrashEnd, CrashPoint, CrashReport } from "./crash.ts";
export {
  exportHistory,
  type GoldenHistory,
  type GoldenOutcome,
  type GoldenRun,
  type ReplayOptions,
  type ReplayReport,
  replayHistory,
} from "./golden.ts";
export type { SettleOptions } from "./test-perdure.ts";
