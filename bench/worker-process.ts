/** A process of its own with one engine, for the questions that need another process. Starts the runs that its parent names. */
import { Perdure } from "../lib/index.ts";
import { takenOver } from "./support/taken-over.ts";

const [database, schema] = process.argv.slice(2) as [string, string];
const perdure = new Perdure({ database, schema, workflows: [takenOver] });
await perdure.launch();
process.on("disconnect", () => process.exit());
process.on("message", (id: string) => void perdure.start(takenOver.with({ id }), String(process.pid)));
process.send?.({ ready: true });
