/**
 * Is a second process a gain on two cores? The question of bench:peers, asked of Perdure alone: one drain by one process and by two. A longer
 * one, as each process first spends half a second of CPU on compiling, which two do side by side at the cost of each other.
 */
import { Arena } from "./peers/arena.ts";
import { processes as compared } from "./peers/scenarios/processes.ts";
import { FULL } from "./peers/sizes.ts";
import type { Lab } from "./support/lab.ts";

const ROUNDS = 3;
/** How long a drain takes one process, about, and of how many runs at most. */
const LONG = { seconds: 5, most: 100_000 };

export async function processes(lab: Lab): Promise<void> {
  const arena = await Arena.open(lab, ["perdure"], { ...FULL, ...LONG, rounds: ROUNDS });
  try {
    await compared(arena, ROUNDS);
  } finally {
    await arena.clear();
  }
}
