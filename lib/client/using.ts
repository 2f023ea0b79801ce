/** Starts, sends and cancellations in the caller's own transaction. */
import { refuseInBody } from "../core/context.ts";
import { PerdureError } from "../core/errors.ts";
import { attempt, checkName, shorten } from "../core/options.ts";
import type { CallerClient, StartOptions, WorkflowDefinition } from "../core/types.ts";
import { CallerWriter } from "../db/caller.ts";
import type { Slots } from "../db/leased.ts";
import { Store } from "../db/store.ts";
import { cancelRun } from "./control.ts";
import { type HandleParts, makeHandle } from "./handle.ts";
import { startRun } from "./start.ts";

export interface UsingParts extends HandleParts {
  readonly schema: string;
  readonly notify: boolean;
  readonly find: (workflow: unknown) => { readonly definition: WorkflowDefinition; readonly options: StartOptions };
}

/** Whether the run will exist is not known before the commit: no slot is kept for it. */
const NO_SLOTS: Slots = { serves: () => false, reserve: () => false, adopt: () => {}, watch: () => {} };

/** The verbs of `perdure.using()`, which gives them their types. */
export function callerVerbs(client: CallerClient, parts: UsingParts) {
  const { schema, notify, codec, checkLive, find } = parts;
  const writer = new CallerWriter(checkClient(client), { schema, notify });
  const sender = parts.sender.over(writer);
  const store = new Store(schema, writer);
  const check = (verb: string): void => {
    refuseInBody(`${verb}() of perdure.using()`, "call it in a transaction() step");
    checkLive();
  };
  return {
    start: async (workflow: unknown, ...args: unknown[]) => {
      check("start");
      const { definition, options } = find(workflow);
      const id = await startRun(definition, options, args, { flusher: writer, codec, slots: NO_SLOTS });
      return makeHandle(id, { ...parts, exists: false });
    },
    send: async (ids: any, event: any, data?: unknown, options?: any): Promise<any> => {
      check("send");
      return typeof ids === "string" ? sender.one(ids, event, data, options) : sender.many(ids, event, data, options);
    },
    cancel: async (id: string, reason?: string) => {
      check("cancel");
      await cancelRun(checkName(id, "run id"), reason, { store, onChange: () => {} });
    },
  };
}

function checkClient(client: CallerClient): CallerClient {
  const kind = attempt(() => {
    if (typeof client !== "object" || client === null || typeof client.query !== "function") return "other";
    return "totalCount" in client ? "pool" : "client";
  });
  if (kind === "client") return client;
  const text =
    kind === "pool"
      ? "using() needs a client in a transaction, and a Pool runs each statement on any of its connections: take a client with pool.connect(), and begin"
      : `using() needs a client with query(text, values) in a transaction, not ${shorten(client)}; for drizzle, kysely and knex there are adapters in perdure/adapters`;
  throw new PerdureError("PERDURE_OPTION", text);
}
