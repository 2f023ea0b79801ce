/** A client and its worker in one. */
import type { DatabaseOption } from "../db/database-option.ts";
import { type Client, type ClientOptions, client } from "./client.ts";
import { type WorkerHandle, type WorkerOptions, worker } from "./worker.ts";

/** Options of `createAiki`: those of a client, and what its worker serves. */
export type AikiOptions<Context> = ClientOptions<Context> &
  Pick<WorkerOptions, "workflows" | "config"> & {
    /** The older name of `database`. */ pool?: DatabaseOption | undefined;
  };

/**
 * A client that is a worker as well, once it is started; `stop` ends both.
 *
 * @throws PERDURE_OPTION.
 * @example const aiki = createAiki({ pool, workflows: [orderV1] }); await aiki.start();
 */
export function createAiki<Context = null>(
  options: AikiOptions<Context> = {},
): Client<Context> & {
  start(): Promise<WorkerHandle>;
  stop(): Promise<void>;
} {
  const { pool, workflows, config, database = pool, ...rest } = options;
  const work = worker({ workflows, config });
  const aiki = client<Context>({ ...rest, ...(database === undefined ? {} : { database }) });
  return Object.assign(aiki, { start: async () => work.start(aiki), stop: () => aiki.close() });
}
