/** Three who only look, each by another way, and write down what they saw: no two may see different ends, and none a step back. */
import { setTimeout as pause } from "node:timers/promises";
import type { Perdure } from "../../lib/index.ts";
import { SCHEMA } from "./audit.ts";
import { Dice } from "./dice.ts";
import type { Case } from "./driver.ts";
import { sql } from "./server.ts";

const TERMINAL = ["completed", "failed", "cancelled"];
const AT_ONCE = 40;

export interface Observer {
  readonly name: string;
  /** The state in which each run was seen last. */
  readonly seen: Map<string, string>;
  /** Runs that were seen to leave their end. */
  readonly wrong: string[];
  looks: number;
  look(ids: readonly string[]): Promise<ReadonlyMap<string, string>>;
}

export class Observers {
  readonly all: readonly Observer[];
  #stopped = false;
  #loops: Promise<void>[] = [];

  constructor(parts: { engines: readonly Perdure[]; url: () => string; seed: number; cases: readonly Case[] }) {
    const { engines, url, seed, cases } = parts;
    this.all = [
      observer("status() of a client", (ids) => statuses(engines[0]!, ids)),
      observer("status() of a client that polls", (ids) => statuses(engines[1]!, ids)),
      observer("the view", async (ids) => {
        const rows = await sql(url(), `select id, state from ${SCHEMA}.runs where id = any($1)`, [ids]);
        return new Map(rows.map(({ id, state }) => [id, state]));
      }),
    ];
    this.#loops = this.all.map((one, at) => this.#watch(one, new Dice(seed + at), cases));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#loops);
  }

  async #watch(one: Observer, dice: Dice, cases: readonly Case[]): Promise<void> {
    while (!this.#stopped) {
      await pause(100);
      // Most of what was begun last is under way.
      const recent = cases.slice(-300).filter(({ started }) => started);
      if (recent.length === 0) continue;
      const ids = [...new Set(Array.from({ length: AT_ONCE }, () => dice.pick(recent).order.id))];
      note(one, await one.look(ids).catch(() => new Map()));
    }
  }
}

function observer(name: string, look: Observer["look"]): Observer {
  return { name, seen: new Map(), wrong: [], looks: 0, look };
}

/** What an observer has seen. */
export function note(one: Observer, states: ReadonlyMap<string, string>): void {
  for (const [id, state] of states) {
    one.looks += 1;
    const before = one.seen.get(id);
    if (before !== undefined && TERMINAL.includes(before) && state !== before)
      one.wrong.push(`I16 ${one.name} saw ${id} ${before}, then ${state}`);
    one.seen.set(id, state);
  }
}

async function statuses(engine: Perdure, ids: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const found = await Promise.all(
    ids.slice(0, 8).map(
      async (id) =>
        [
          id,
          await engine
            .get(id)
            .status()
            .then(
              ({ state }) => state,
              () => null,
            ),
        ] as const,
    ),
  );
  return new Map(found.filter((pair): pair is [string, any] => pair[1] !== null));
}
