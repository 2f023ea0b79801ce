/**
 * The tokens of a model reach the browser as they come, through a row each in Postgres. The page is reloaded in the middle and reads on where
 * it was; somebody else opens the chat when it is over and reads it all. The step that writes them runs at least once: a second try begins
 * with a mark, so that the page knows to begin anew.
 */
import { currentStep, Perdure, step, stream, workflow } from "perdure";
import { fresh } from "./fresh.ts";

type Piece = { readonly attempt: number } | { readonly token: string };
const pieces = stream<Piece>("pieces");

// Stands for a model's API, which loses its connection the first time.
async function* model(prompt: string, attempt: number): AsyncGenerator<string> {
  for (const token of `You said: ${prompt}`.split(/(?<= )/)) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    if (attempt === 1 && token === "are ") throw new Error("connection lost");
    yield token;
  }
}

const complete = step(
  { name: "complete", retry: { type: "fixed", maxAttempts: 3, delay: "10ms" } },
  async (prompt: string) => {
    const { attempt } = currentStep();
    await pieces.write({ attempt });
    let text = "";
    for await (const token of model(prompt, attempt)) {
      text += token;
      await pieces.write({ token });
    }
    return text;
  },
);
const chat = workflow("chat", async (prompt: string) => {
  const text = await complete(prompt);
  await pieces.close();
  return text;
});

await fresh("example_10");
const worker = new Perdure({ schema: "example_10", workflows: [chat] });
const website = new Perdure({ schema: "example_10", worker: false });
await Promise.all([worker.launch(), website.launch()]);
await worker.start(chat.with({ id: "chat-1" }), "how are you");

/** What a page shows after a piece. */
const show = (text: string, piece: Piece): string => ("token" in piece ? text + piece.token : "");

const run = website.get("chat-1");
let seen = 0;
let page = "";
for await (const piece of run.read(pieces)) {
  page = show(page, piece);
  seen += 1;
  if (seen === 3) break; // the page is reloaded
}
console.log(`after ${seen} pieces: "${page}"`);
for await (const piece of run.read(pieces, { from: seen })) {
  page = show(page, piece);
  if ("attempt" in piece) console.log(`try ${piece.attempt} begins`);
}
console.log(`at the end: "${page}"`);

let late = "";
for await (const piece of run.read(pieces)) late = show(late, piece);
console.log(`read later: ${late === page && late === (await run.result())}`);
await Promise.all([website.shutdown(), worker.shutdown()]);

// Output:
// after 3 pieces: "You said: "
// try 2 begins
// at the end: "You said: how are you"
// read later: true
