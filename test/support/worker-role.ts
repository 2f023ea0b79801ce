/** A login that may work on a schema, and owns nothing. */
import { randomBytes } from "node:crypto";
import type { Test } from "tap";
import { Perdure } from "../../lib/index.ts";
import { inDatabase } from "./postgres.ts";

/** Makes the schema as its owner, and a role that is granted to work on it: its URL. Dropped after the test, once what was made behind it has ended. */
export async function workerUrl(t: Pick<Test, "teardown">, url: string, schema: string): Promise<string> {
  const role = `w_${randomBytes(6).toString("hex")}`;
  const owner = new Perdure({ database: url, schema });
  await owner.migrate();
  await owner.shutdown();
  await inDatabase(url, async (client) => {
    await client.query(`create role ${role} login password '${role}'`);
    await client.query(`select "${schema}".grant_to('${role}', 'worker')`);
    // What a test makes beside ours is its engine's.
    for (const what of ["tables", "sequences"])
      await client.query(`alter default privileges in schema "${schema}" grant all on ${what} to ${role}`);
  });
  t.teardown(() => inDatabase(url, (client) => client.query(`drop owned by ${role} cascade; drop role ${role}`)));
  return Object.assign(new URL(url), { username: role, password: role }).href;
}
