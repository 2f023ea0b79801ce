/** Data in a place that nobody chose is not to be a surprise: of an embedded server the log tells, once a process. */
import type { EngineLog } from "../core/logging.ts";
import type { Database } from "./connect.ts";

let announced = false;

export function announceEmbedded(database: Database, logger: EngineLog): void {
  if (announced || !database.stopEmbedded) return;
  announced = true;
  const { connectionString } = database.clientConfig();
  logger.warn(
    `perdure: no database is given, so this is an embedded Postgres for development, at ${connectionString}, kept under .perdure/; set DATABASE_URL, or \`database\` of new Perdure(), for another`,
  );
}
