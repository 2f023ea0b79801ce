/**
 * A clinic's letters hold what nobody who reads the database, a copy or a backup of it may see. With a codec, arguments, results, errors, events and all
 * that runs publish are encrypted before they are stored, each bound to its run and its place there. A year later the key is changed, while a letter waits for its
 * doctor: the next deploy knows both keys and writes with the new one, the letter goes on, and once nothing that is open uses the old key, it goes.
 */
import { event, Perdure, step, transaction, workflow } from "perdure";
import { compression, encryption } from "perdure/codec";
import { fresh } from "./fresh.ts";

// In a real program they come from a key service or the environment: `openssl rand -base64 32`.
const first = Buffer.alloc(32, "the key of 2026");
const second = Buffer.alloc(32, "the key of 2027");
// For the hashes of arguments in slots. It stays as it is while runs are open.
const hashKey = Buffer.alloc(32, "the key of hashes");

const signed = event<{ by: string }>("signed");
const draft = step("draft", async (patient: string) => `Dear ${patient}, your results are fine.`);
const letter = workflow("letter", async (patient: string) => {
  const text = await draft(patient);
  const { data } = await signed.wait();
  return `${text} ${data.by}`;
});

const stored = transaction("stored", async (tx) => {
  const { rows } = await tx.query("select args::text as text from example_26.input order by run limit 1");
  return rows[0].text as string;
});
const keysInUse = transaction("keys in use", async (tx) => {
  const { rows } = await tx.query(
    "select codec, sum(in_use)::integer as values from example_26.codecs group by codec order by codec",
  );
  return rows.map(({ codec, values }) => `${codec}: ${values}`).join(", ");
});

/** The program as it is deployed with one set of keys. */
async function deployed(keys: Record<string, Buffer>, current: string): Promise<Perdure> {
  const codec = [compression(), encryption({ keys, current, hashKey })];
  const perdure = new Perdure({ schema: "example_26", workflows: [letter], codec });
  await perdure.launch();
  return perdure;
}

await fresh("example_26");
let perdure = await deployed({ "2026": first }, "2026");
const run = await perdure.start(letter.with({ id: "letter-1" }), "Ada");
while ((await run.status()).state !== "suspended") await new Promise((resolve) => setTimeout(resolve, 10));
console.log((await stored()).includes("Ada") ? "readable" : "not readable", await keysInUse());
await perdure.shutdown();

perdure = await deployed({ "2026": first, "2027": second }, "2027");
await perdure.start(letter.with({ id: "letter-2" }), "Grace");
await perdure.send(["letter-1", "letter-2"], signed, { by: "Dr. Lovelace" });
for (const id of ["letter-1", "letter-2"]) console.log(await perdure.get(letter, id).result());
console.log(await keysInUse());
await perdure.shutdown();

// The old key is gone: what has ended with it is not read any more, and everything else is.
perdure = await deployed({ "2027": second }, "2027");
console.log(await perdure.get(letter, "letter-1").result());
const [entry] = await perdure.get("letter-1").history();
console.log(entry?.unreadable?.message.split(": ").at(-1));
await perdure.shutdown();

// Output:
// not readable encrypt:2026: 2
// Dear Ada, your results are fine. Dr. Lovelace
// Dear Grace, your results are fine. Dr. Lovelace
// encrypt:2026: 0, encrypt:2027: 0
// Dear Ada, your results are fine. Dr. Lovelace
// key "2026" is not among the keys of encryption() (they are "2027")
