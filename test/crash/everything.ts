/** One workflow that uses every feature, and a client that asks for it again until it is told what it came to. */
import {
  currentRun,
  currentStep,
  event,
  now,
  type Perdure,
  patched,
  race,
  random,
  runStep,
  sleep,
  sleepUntil,
  start,
  step,
  stream,
  transaction,
  uuid,
  value,
  type Workflow,
  workflow,
} from "../../lib/index.ts";
import type { Journal } from "./topics.ts";

/** What a run comes to, whatever has failed on its way. */
export const RESULT = {
  said: [
    "attempt 2",
    "left, right, both",
    "slept",
    "one, two",
    "nobody",
    "late",
    "cleo",
    "ben",
    "ann",
    "dora was told hello",
    "emil was cancelled",
    "finn failed: no good",
    "caught: refused",
  ],
  next: "the next",
  joined: "joined by a transaction",
  items: ["first", "second", "third"],
  level: 3,
};

/** Steps of a run and of its children, and how often each is entered when nothing fails. */
export const PLAIN: Readonly<Record<string, number>> = {
  drawn: 2,
  weak: 2,
  left: 1,
  right: 1,
  speak: 1,
  refused: 1,
  "play ann": 1,
  "play ben": 1,
  "play cleo": 1,
};
/** What the transactions of a run and of its children have done, each once. */
export const EFFECTS = ["both", "by ann", "by ben", "by cleo", "charge", "join", "next"];

export interface Everything {
  readonly workflows: Readonly<Record<"everything" | "small" | "heard" | "hopeless" | "last", Workflow<any, unknown>>>;
  /** Starts the run, sends it its events and waits for all that comes of it. Done again, it comes to the same. */
  play(perdure: Perdure, run: string): Promise<typeof RESULT>;
}

export function everything({ enter, schema }: Pick<Journal, "enter" | "schema">, engine: () => Perdure): Everything {
  const word = event<string>("word");
  const never = event("never");
  const items = stream<string>("items");
  const spoken = stream<string>("spoken");
  const level = value<number>("level");

  const plain = step("plain", async (run: string, name: string) => {
    await enter(run, name);
    return name;
  });
  const book = `insert into "${schema}".ledger (run, step) values ($1, $2)`;
  const booked = transaction("booked", async (tx, run: string, name: string) => {
    await tx.query(book, [run, name]);
    return name;
  });
  /** What the body has drawn is its argument: drawn otherwise, it would be another call. */
  const drawn = step("drawn", async (run: string, _drawn: unknown) => void (await enter(run, "drawn")));
  const weak = step({ name: "weak", retry: { type: "fixed", maxAttempts: 2, delay: 20 } }, async (run: string) => {
    await enter(run, "weak");
    if (currentStep().attempt === 1) throw new Error("not yet");
    return `attempt ${currentStep().attempt}`;
  });
  const refused = step("refused", async (run: string) => {
    await enter(run, "refused");
    throw new TypeError("refused");
  });
  const speak = step("speak", async (run: string) => {
    await enter(run, "speak");
    await spoken.write("spoken");
  });
  const small = workflow("small", async (run: string, name: string) => {
    await plain(run, `play ${name}`);
    await booked(run, `by ${name}`);
    return name;
  });
  const heard = workflow("heard", async () => (await word.wait()).data);
  const hopeless = workflow("hopeless", async () => {
    throw new Error("no good");
  });
  const last = workflow("last", async (run: string) => {
    await booked(run, "next");
    return "the next";
  });
  /** Starts a run and sends it an event, all in its own transaction. */
  const join = transaction("join", async (tx, run: string) => {
    await tx.query(book, [run, "join"]);
    const using = engine().using(tx);
    await using.start(heard.with({ id: `${run}/joined` }));
    await using.send(`${run}/joined`, word, "joined by a transaction");
  });

  const all = workflow(
    { name: "everything", retry: { type: "fixed", maxAttempts: 2, delay: 20 }, timeout: "10m" },
    async (run: string) => {
      const said: string[] = [];
      await drawn(run, [uuid(), random(), now()]);
      await level.set(1);
      await items.write("first");
      said.push(await weak(run));
      if (currentRun().attempt === 1) throw new Error("once more");
      await items.write("second");
      said.push((await Promise.all([plain(run, "left"), plain(run, "right"), booked(run, "both")])).join(", "));
      await booked(run, "charge");
      await speak(run);
      await join(run);
      await sleep("nap", 20);
      await sleepUntil(now());
      said.push("slept");
      const [one, two] = [await word.wait(), await word.wait()];
      said.push([one.data, two.data].join(", "));
      said.push((await never.wait({ timeout: 20 })) ? "somebody" : "nobody");
      said.push((await race({ never, late: 20 })).winner);
      if (!patched("more-children")) throw new Error("the branch is new");
      const [ann, cleo, dora, emil] = [
        await start(small, run, "ann"),
        await start(small, run, "cleo"),
        await start(heard.with({ tags: ["dora"] })),
        await start(heard.with({ tags: ["emil"] })),
      ];
      said.push((await race({ cleo, late: "1h" })).winner);
      said.push(String(await small(run, "ben")), String(await ann.result()));
      await dora.send(word, "hello");
      said.push(`dora was told ${await dora.result()}`);
      await emil.cancel("enough");
      said.push(await emil.result().then(String, () => "emil was cancelled"));
      said.push(await hopeless().then(String, (error: Error) => `finn failed: ${(error.cause as Error).message}`));
      said.push(await refused(run).then(String, (error: Error) => `caught: ${error.message}`));
      await drawn(run, [uuid(), random(), now()]);
      await runStep("anonymous", () => undefined);
      await level.set(3);
      await items.write("third");
      await items.close();
      await start(last.with({ id: `${run}/next`, detached: true }), run);
      return said;
    },
  );

  const play = async (perdure: Perdure, run: string): Promise<typeof RESULT> => {
    const handle = await perdure.start(all.with({ id: run }), run);
    for (const data of ["one", "two"]) await perdure.send(run, word, data, { reference: data, ignoreFinished: true });
    const read: string[] = [];
    for await (const item of handle.read(items)) read.push(item);
    const said = (await handle.result()) as string[];
    const next = (await perdure.get(`${run}/next`).result()) as string;
    const joined = (await perdure.get(`${run}/joined`).result()) as string;
    return { said, next, joined, items: read, level: (await handle.get(level))! };
  };
  return { workflows: { everything: all, small, heard, hopeless, last }, play };
}
