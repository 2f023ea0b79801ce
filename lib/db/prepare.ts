/** Before an engine works: the server is one we can use, the schema is up to date. */
import { checkServer, connectClient, type Database } from "./connect.ts";
import { assertMigrated, migrate } from "./migrate.ts";

/** Checks the server, then migrates the schema or, without `mayMigrate`, refuses one that is behind. */
export async function prepare(database: Database, schema: string, mayMigrate: boolean): Promise<void> {
  const connect = () => connectClient(database.clientConfig());
  const client = await connect();
  try {
    database.pooled = (await checkServer(client)).pooled;
    if (!mayMigrate) await assertMigrated(client, schema);
  } finally {
    await client.end().catch(() => {});
  }
  if (mayMigrate) await migrate({ connect, schema });
}
