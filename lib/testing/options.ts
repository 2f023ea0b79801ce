/** What a TestPerdure may be told. */
import type { PerdureOptions } from "../settings.ts";
import type { StandIn } from "./stand-in.ts";

/** Options of `new TestPerdure`: those of an engine, and these. */
export interface TestOptions extends Omit<PerdureOptions, "migrate"> {
  /** What runs in place of steps, transactions and child workflows, and what is sent to runs that wait for an event: see `standIn`. */
  standIns?: readonly StandIn[] | undefined;
  /**
   * How often bodies are replayed. `"usual"` (default): whenever a run goes on that was suspended. `"always"`: after every checkpoint as
   * well, so that code which does not ask for the same things again shows at once, by an error of `settled()`.
   */
  replay?: "usual" | "always" | undefined;
  /** Where the clock stands at launch. Default: the time of day. */
  now?: Date | undefined;
}
