/** `perdure/testing`: what tests of workflows need. The public names, nothing else. */
export { type CrashEnd, type CrashOptions, type CrashPoint, type CrashReport, crashEverywhere } from "./crash.ts";
export {
  exportHistory,
  type GoldenHistory,
  type GoldenOutcome,
  type GoldenRun,
  type ReplayOptions,
  type ReplayReport,
  replayHistory,
} from "./golden.ts";
export type { TestOptions } from "./options.ts";
export { type StandIn, standIn } from "./stand-in.ts";
export { type SettleOptions, TestPerdure } from "./test-perdure.ts";
