/** From a row of a look to what a pass is told. */
import { toEnded, toMails } from "../db/loaded.ts";
import type { Look } from "../db/store.ts";
import type { News, Rung } from "../engine/ports.ts";

/** `row`: undefined where the claim is over. `askedAt`: by performance.now(); `now`: by the database's clock. */
export function toNews(row: Look | undefined, askedAt: number, now: number): News {
  if (!row)
    return { askedAt, now, held: false, pausing: false, mail: 0, unread: [], due: new Map(), ended: [], next: null };
  const due = new Map<string, Rung>(row.due === null ? [] : JSON.parse(row.due));
  const next = row.next_ms === null ? null : now + row.next_ms;
  const { held, pausing, mail } = row;
  return {
    askedAt,
    now: row.now_ms,
    held,
    pausing,
    mail,
    unread: toMails(row.unread),
    due,
    ended: toEnded(row.ended),
    next,
  };
}
