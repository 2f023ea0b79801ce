/** What the bodies of a worker process tell the process that measures: by a message where it is waited for, counted where it is much. */
import { setTimeout as pause } from "node:timers/promises";
import type { Teller } from "./adapter.ts";

/** How often the counts are told. */
const REPORT_MS = 20;

/** Milliseconds of a clock that all processes of the machine share. */
export const clock = (): number => Number(process.hrtime.bigint()) / 1e6;

export type Told =
  | { readonly loaded: true }
  | { readonly began: number; readonly ended: number }
  | { readonly mark: string; readonly what: "tells" | "waits" | "sleeps" | "holds"; readonly at: number }
  | { readonly answer: object };

export interface Usage {
  /** Microseconds of CPU since its first body began; of a process without one, since its packages were loaded. */
  readonly cpu: number;
  readonly rss: number;
  /** Heap and buffers, after collections where the process may ask for them. */
  readonly heap: number;
}

/** A teller; `onFirst` is called when the first body begins. */
export function tellerTo(tell: (told: Told) => void, onFirst: () => void): Teller {
  let began = 0;
  let ended = 0;
  let reported = 0;
  setInterval(() => {
    if (ended === reported) return;
    reported = ended;
    tell({ began, ended });
  }, REPORT_MS).unref();
  const asked = new Set<string>();
  return {
    begins: () => {
      if (began > 0) return;
      began = clock();
      onFirst();
    },
    ends: () => {
      ended += 1;
    },
    tells: (mark) => tell({ mark, what: "tells", at: clock() }),
    waits: (mark) => tell({ mark, what: "waits", at: clock() }),
    sleeps: (mark) => {
      if (asked.has(mark)) return; // a body that is resumed asks again
      asked.add(mark);
      tell({ mark, what: "sleeps", at: clock() });
    },
    holds: async (mark) => {
      tell({ mark, what: "holds", at: clock() });
      if (process.env.BENCH_HOLDS) await pause(600_000);
    },
  };
}
