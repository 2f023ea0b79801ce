/**
 * Access to production: two people approve one after the other, each has seven days, and then three systems are told in turn. That is a
 * saga: when a later system refuses, what the earlier ones did is taken back, last first. A wait of days is a row. Each grant and each
 * revocation is a transaction step, so it takes effect exactly once, wherever the process dies.
 */
import { type Duration, event, NonRetryableError, Perdure, step, transaction, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const SEVEN_DAYS = { days: 7 };
/** An event for each approver: an answer that comes early waits for its turn. */
const decisionOf = (approver: string) => event<"yes" | "no">(`decision of ${approver}`);

const ask = step("ask", async (approver: string, user: string) => console.log(`${approver}: may ${user} have access?`));
const note = (did: string) =>
  transaction(did, async (tx, system: string, user: string) => {
    await tx.query("insert into example_12.audit (did, system, login) values ($1, $2, $3)", [did, system, user]);
  });
const grant = note("grant");
const revoke = note("revoke");
// A system outside of this database: tried again while it is away, but not when it says no.
const retry = { type: "exponential", maxAttempts: 5, baseDelay: "1s" } as const;
const enrol = step({ name: "enrol", retry }, async (user: string) => {
  if (user === "mallory") throw new NonRetryableError("the directory does not know mallory");
});

const provision = workflow("provision", async (user: string) => {
  const undo: (() => Promise<unknown>)[] = [];
  try {
    for (const system of ["vpn", "database"]) {
      await grant(system, user);
      undo.unshift(() => revoke(system, user));
    }
    await enrol(user);
    return "has access";
  } catch (error) {
    for (const takeBack of undo) await takeBack();
    return `was rolled back: ${(error as Error).message}`;
  }
});

const requestAccess = workflow("request-access", async (user: string, patience: Duration = SEVEN_DAYS) => {
  for (const approver of ["lead", "security"]) {
    await ask(approver, user);
    const decision = await decisionOf(approver).wait({ timeout: patience });
    if (!decision) return `${user}: ${approver} did not answer in time`;
    if (decision.data === "no") return `${user}: ${approver} said no`;
  }
  // Detached: a request that is cancelled meanwhile does not stop it half way.
  return `${user} ${await provision.with({ detached: true })(user)}`;
});

const setUp = transaction("set-up", async (tx) => {
  await tx.query(
    "create table example_12.audit (no integer generated always as identity, did text, system text, login text)",
  );
});
const audit = transaction("audit", async (tx, user: string) => {
  const { rows } = await tx.query("select did, system from example_12.audit where login = $1 order by no", [user]);
  return rows.map(({ did, system }) => `${did} ${system}`).join(", ");
});

await fresh("example_12");
const perdure = new Perdure({ schema: "example_12", workflows: [requestAccess, provision] });
await perdure.launch();
await setUp();

// The answers of the two stand in for a page with two buttons. The last request gets milliseconds, so that you need not wait for a week.
for (const user of ["ada", "mallory"]) {
  const run = await perdure.start(requestAccess, user);
  await run.send(decisionOf("security"), "yes");
  await run.send(decisionOf("lead"), "yes");
  console.log(await run.result());
  console.log(`  ${await audit(user)}`);
}
console.log(await (await perdure.start(requestAccess, "bob", "10ms")).result());
await perdure.shutdown();

// Output:
// lead: may ada have access?
// security: may ada have access?
// ada has access
//   grant vpn, grant database
// lead: may mallory have access?
// security: may mallory have access?
// mallory was rolled back: the directory does not know mallory
//   grant vpn, grant database, revoke database, revoke vpn
// lead: may bob have access?
// bob: lead did not answer in time
