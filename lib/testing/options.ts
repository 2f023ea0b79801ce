/** What a TestPerdure may be told. */
import type { PerdureOptions } from "../settings.ts";
import type { StandIn } from "./stand-in.ts";

/** Options of `testPerdure`: those of an engine, and these. */
export interface TestOptions extends Omit<PerdureOptions, "migrate"> {
  /** @internal what `stub` makes, for engines that begin with them */
  standIns?: readonly StandIn[] | undefined;
  /**
   * How often bodies are replayed. `"usual"` (default): whenever a run goes on that was suspended, unless `worker.warm` keeps it in memory. `"always"`: after every checkpoint as
   * well, so that code which does not ask for the same things again shows at once, by an error of `settled()`.
   */
  replay?: "usual" | "always" | undefined;
  /** Where the clock stands at launch. Default: the time of day. */
  now?: Date | undefined;
}
