/**
 * Two kinds of patience. The upload retries its own step a few times, close together: a hiccup of the network. When that is not enough, the
 * whole workflow is tried again, further apart: an outage. What was done stays done: the file is read once, however often the upload begins
 * anew. `shouldRetry` tells a failure that will pass from one that will not.
 */
import { currentRun, currentStep, NonRetryableError, Perdure, RunFailedError, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const readFile = step("read-file", async (file: string) => {
  console.log(`reading ${file}`);
  return file.length;
});

let requests = 0; // The storage answers the fifth one.
const upload = step(
  { name: "upload", retry: { type: "fixed", maxAttempts: 2, delay: "10ms" }, timeout: "30s" },
  async (file: string, bytes: number) => {
    if (file === "secret.txt") throw new NonRetryableError("403: not yours");
    requests += 1;
    console.log(`attempt ${currentRun().attempt} of the run, try ${currentStep().attempt} of the step`);
    if (requests < 5) throw new Error("503: try later");
    return `${bytes} bytes of ${file} are stored`;
  },
);

const isPassing = (error: unknown): boolean => error instanceof Error && error.message.startsWith("503");
const backUp = workflow(
  {
    name: "back-up",
    retry: { type: "exponential", maxAttempts: 10, baseDelay: "20ms", maxDelay: "1h", shouldRetry: isPassing },
  },
  async (file: string) => upload(file, await readFile(file)),
);

await fresh("example_42");
// The engine warns of each run that fails. This program tells of it itself.
const logger = { debug() {}, info() {}, warn() {}, error: console.error };
const perdure = new Perdure({ schema: "example_42", workflows: [backUp], logger });
await perdure.launch();
console.log(await (await perdure.start(backUp, "notes.txt")).result());
const error = await (await perdure.start(backUp, "secret.txt")).result().catch((failed: unknown) => failed);
console.log(error instanceof RunFailedError && `given up: ${(error.cause as Error).message}`);
await perdure.shutdown();

// Output:
// reading notes.txt
// attempt 1 of the run, try 1 of the step
// attempt 1 of the run, try 2 of the step
// attempt 2 of the run, try 1 of the step
// attempt 2 of the run, try 2 of the step
// attempt 3 of the run, try 1 of the step
// 9 bytes of notes.txt are stored
// reading secret.txt
// given up: 403: not yours
