/** Empties the schema of an example, so that the example can be run again. An application has no use for this. */
import { Perdure, transaction } from "perdure";

const drop = transaction("drop", async (tx, schema: string) => {
  await tx.query("set local client_min_messages = warning");
  await tx.query(`drop schema if exists "${schema}" cascade`);
});

export async function fresh(schema: string): Promise<void> {
  // Called outside a workflow, a transaction runs on the engine that is launched.
  const engine = new Perdure({ schema: "examples", worker: false });
  await engine.launch();
  await drop(schema);
  await engine.shutdown();
}
