/**
 * A conversation: the run answers each message in the order in which they came, and ends when nobody has said anything for a while. Each wait has its
 * own timeout, so each message begins the patience anew. What came while it was busy waits in its mailbox.
 */
import { type Duration, event, Perdure, RunFinishedError, step, stream, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const said = event<string>("said");
const answers = stream<string>("answers");
const answer = step("answer", async (text: string) => `you said "${text}"`);

const echo = workflow("echo", async (patience: Duration) => {
  let count = 0;
  for (;;) {
    const message = await said.wait({ timeout: patience });
    if (!message) break;
    count += 1;
    await answers.write(await answer(message.data));
  }
  await answers.write("bye");
  return count;
});

await fresh("example_46");
const perdure = new Perdure({ schema: "example_46", workflows: [echo] });
await perdure.launch();
const run = await perdure.start(echo, "300ms");
for (const text of ["hello", "is anybody there", "hello"]) await run.send(said, text);
for await (const text of run.read(answers)) console.log(text);
console.log(`${await run.result()} messages`);
await run.send(said, "wait!").catch((error) => console.log(error instanceof RunFinishedError ? "too late" : error));
await perdure.shutdown();

// Output:
// you said "hello"
// you said "is anybody there"
// you said "hello"
// bye
// 3 messages
// too late
