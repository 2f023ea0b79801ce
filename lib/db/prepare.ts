/** Before an engine works: the server is one we can use, the schema is up to date. */
import { checkServer, connectClient, type Database } from "./connect.ts";
import { assertMigrated, migrate } from "./migrate.ts";

export interface Preparation {
  readonly schema: string;
  /** False: a schema that is behind is refused. */
  readonly migrate: boolean;
  /** Told what a migration waits for. */
  readonly logger?: { info(message: string): void } | undefined;
}

/** Checks the server, then migrates the schema or refuses one that is behind. */
export async function prepare(database: Database, { schema, migrate: may, logger }: Preparation): Promise<void> {
  const connect = () => connectClient(database.clientConfig());
  const client = await connect();
  try {
    await checkServer(client);
    if (!may) await assertMigrated(client, schema);
  } finally {
    await client.end().catch(() => {});
  }
  if (may) await migrate({ connect, schema, log: (message) => logger?.info(`perdure: ${message}`) });
}
