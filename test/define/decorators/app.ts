/** A process of the test: works on what the services bring, kills itself when it is the first, and ends with the results otherwise. */
import { appendFile } from "node:fs/promises";
import { durable, named, Perdure } from "perdure";
import { Base, Derived, go } from "./service.ts";

const [id, secret, file] = process.argv.slice(2) as [string, string, string];
const journal = { write: (line: string) => appendFile(file, `${line}\n`) };
const base = new Base(journal, secret);
const derived = named("eu", Object.freeze(new Derived(journal, `${secret}-eu`)));
const schema = process.env.SCHEMA ?? "perdure";

const perdure = new Perdure({
  schema,
  workflows: [base, derived],
  lease: "2s",
});
await perdure.launch();
const runs = [
  await perdure.start(durable(base.process).with({ id: `${id}-base` }), "o1"),
  await perdure.start(durable(derived.process).with({ id: `${id}-eu` }), "o2"),
];
if (secret === "first") {
  for (const run of runs)
    while ((await run.status()).waitingFor !== "event") await new Promise((done) => setTimeout(done, 10));
  process.kill(process.pid, "SIGKILL");
}
for (const run of runs) await run.send(go, "thanks", { reference: "once" });
const results = await Promise.all(runs.map((run) => run.result({ timeout: "30s" })));
const same = [
  Object.is(base.process, base.process),
  base.process !== derived.process,
  await base.label("outside"),
  await base.book("outside"),
];
console.log(JSON.stringify({ results, same }));
await perdure.shutdown();
