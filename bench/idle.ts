/**
 * How much does an idle process ask of the database? Its statements, counted where the driver sends them: alone, and while
 * another process holds a run.
 */
import { Perdure } from "../lib/index.ts";
import { number, table } from "./support/figures.ts";
import { type Lab, message } from "./support/lab.ts";
import { countStatements, perSecond } from "./support/statements.ts";
import { takenOver } from "./support/taken-over.ts";

const SECONDS = 15;

export async function idle(lab: Lab): Promise<void> {
  const schema = await lab.schema();
  const perdure = new Perdure({ database: lab.url, schema, workflows: [takenOver] });
  const counter = countStatements();
  await perdure.launch();
  try {
    const alone = await perSecond(counter, SECONDS);
    const owner = lab.fork("worker-process.js", [schema]);
    await message(owner);
    owner.send("held");
    while ((await message<{ step?: number }>(owner)).step !== 1);
    const beside = await perSecond(counter, SECONDS);
    lab.print(
      table([
        ["", "statements/s", "process CPU, %"],
        ["an idle process, alone", number(alone.statements), number(alone.cpu)],
        ["an idle process, another holds a run", number(beside.statements), number(beside.cpu)],
      ]),
    );
    owner.kill("SIGKILL");
  } finally {
    await perdure.shutdown();
    counter.stop();
  }
}
