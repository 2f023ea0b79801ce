/** What perdure/testing is made of, for tests of the parts. */
export { type CrashOptions, crashEverywhere } from "../../lib/testing/crash.ts";
export * from "../../lib/testing/index.ts";
export type { TestOptions } from "../../lib/testing/options.ts";
export { standIn } from "../../lib/testing/stand-in.ts";
export { TestPerdure } from "../../lib/testing/test-perdure.ts";
