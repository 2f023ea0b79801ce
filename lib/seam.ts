/** Where `perdure/testing` takes hold of an engine. In production nothing of this is there. */
import type { DatabaseClock } from "./core/clock.ts";
import type { WorkflowDefinition } from "./core/types.ts";
import type { Database } from "./db/connect.ts";
import type { Guard } from "./db/guard.ts";
import type { PassHooks } from "./engine/ports.ts";

/**
 * What only makes an engine faster, and can be left out for a test: everything else must hold as before.
 *
 * lease: a run is leased at birth. batch: writes travel together. gather: a batch waits for what its answers set going. follow: a batch leaves
 * before the answers of the one before it are told, and many starts beside it. ride: a claim rides in
 * the batch that ends what it waits for. told: a run's end, and what it publishes, is told within the process. pipeline: a batch is one round trip.
 * swift: one row alone is a prepared statement instead of a function. behind: a hint goes in the packet of the batch that it tells of.
 */
export type Shortcut = "lease" | "batch" | "gather" | "follow" | "ride" | "told" | "pipeline" | "swift" | "behind";

export interface Seam {
  readonly clock: DatabaseClock;
  readonly hooks: PassHooks;
  /** What runs for the workflows that are registered. */
  readonly replace: (workflows: ReadonlyMap<string, WorkflowDefinition>) => ReadonlyMap<string, WorkflowDefinition>;
  /** Stands around every commit of a run's writes; then each write is a commit of its own. */
  readonly guard: Guard | null;
  /** In place of what makes the schema ready, which `prepare` does. */
  readonly prepare: (database: Database, prepare: () => Promise<void>) => Promise<void>;
  /** Before the connections are closed. */
  readonly close: (database: Database) => Promise<void>;
  readonly without?: ReadonlySet<Shortcut>;
}
