/** Looks at one run cross: what an older one has not seen is not forgotten. */
import { test } from "tap";
import type { Ended, Mail } from "../../lib/core/claim.ts";
import { Ends } from "../../lib/engine/ends.ts";
import { Mailbox } from "../../lib/engine/mailbox.ts";

test("an older look that is answered later does not hide that more runs have ended than one look brings", async (t) => {
  const end = (id: string, value: string): Ended => ({ id, state: "completed", value, reason: null, attempt: 1 });
  const ends = new Ends({ mail: 0, ended: [] });
  ends.take(5, [end("a", "x".repeat(5 * 1024 * 1024))]);
  t.ok(ends.partial);
  ends.take(4, [end("b", "1")]);
  t.ok(ends.partial, "the run is looked at again before it is given up");
  t.ok(ends.get("b"));
  ends.take(5, [end("c", "2")]);
  t.notOk(ends.partial);
});

test("an older look that is answered later does not hide that there is more mail than one look brings", async (t) => {
  const mails = (from: number, count: number): Mail[] =>
    Array.from({ length: count }, (_, n) => ({
      seq: String(from + n),
      name: "item",
      data: "1",
      reference: null,
      sentAt: 0,
      token: null,
    }));
  const mailbox = new Mailbox({ mail: 0, unread: [] });
  mailbox.take(1500, mails(1, 1000));
  t.ok(mailbox.partial);
  mailbox.take(3, mails(1, 3));
  t.ok(mailbox.partial, "the run is looked at again before it is given up");
  t.equal(mailbox.last, "1000");
  mailbox.take(1500, mails(1001, 500));
  t.notOk(mailbox.partial);
  t.equal(mailbox.seen, 1500);
});
