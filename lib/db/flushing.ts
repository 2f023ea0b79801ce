/** How the flusher's connection is opened, and what it does without: behind a pooler, in a test. */
import { connectClient, type Database } from "./connect.ts";
import type { FlusherOptions } from "./flusher.ts";
import type { Guard } from "./guard.ts";
import { connectSwift } from "./swift.ts";

type Flushing = Pick<FlusherOptions, "connect" | "beside" | "guard" | "named" | "most" | "gathers" | "follows">;

export function flushing(database: Database, without: ReadonlySet<string>, guard: Guard | null): Flushing {
  return {
    connect: () => {
      const config = database.clientConfig({ pipeline: !without.has("pipeline") } as object);
      return without.has("swift") || database.pooled ? connectClient(config) : connectSwift(config);
    },
    beside: (work) => database.beside(work),
    guard,
    named: !database.pooled,
    most: without.has("batch") ? 1 : undefined,
    gathers: !without.has("gather"),
    follows: !guard && !without.has("follow"),
  };
}
