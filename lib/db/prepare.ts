/** Before an engine works: the server is one we can use, the role may, the schema is up to date. */
import type { Logger } from "../core/types.ts";
import { checkServer, connectClient, type Database } from "./connect.ts";
import { assertMigrated, migrate } from "./migrate.ts";
import { checkRights, openSearchPath } from "./rights.ts";

export interface PrepareOptions {
  readonly schema: string;
  /** Whether the schema is migrated; otherwise one that is behind is refused. */
  readonly migrate: boolean;
  readonly logger: Pick<Logger, "warn" | "info">;
}

/** Checks the server and the role, then migrates. */
export async function prepare(database: Database, options: PrepareOptions): Promise<void> {
  const { schema, logger } = options;
  const connect = () => connectClient(database.clientConfig());
  const client = await connect();
  try {
    database.pooled = (await checkServer(client)).pooled;
    await checkRights(client, schema);
    const open = await openSearchPath(client);
    if (open !== undefined) logger.warn(`perdure: ${open}`);
    if (!options.migrate) await assertMigrated(client, schema);
  } finally {
    await client.end().catch(() => {});
  }
  if (options.migrate) await migrate({ connect, schema, log: (message) => logger.info(`perdure: ${message}`) });
}
