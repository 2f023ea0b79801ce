/** `perdure/testing`: what tests of workflows need. The public names, nothing else. */
export { type CrashEnd, type CrashOptions, type CrashPoint, type CrashReport, crashEverywhere } from "./crash.ts";
export {
  exportHistory,
  type GoldenHistory,
  type GoldenOutcome,
  type ReplayOptions,
  type ReplayReport,
  replayHistory,
} from "./golden.ts";
export type { TestOptions } from "./kit.ts";
export { type StandIn, standIn } from "./stand-ins.ts";
export { type SettleOptions, TestPerdure } from "./test-perdure.ts";
