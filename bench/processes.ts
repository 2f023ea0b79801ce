/** Is a second process a gain on two cores? The question of bench:peers, asked of Perdure alone: one drain by one process and by two. */
import { Arena } from "./peers/arena.ts";
import { processes as compared } from "./peers/scenarios/processes.ts";
import { FULL } from "./peers/sizes.ts";
import type { Lab } from "./support/lab.ts";

const ROUNDS = 5;

export async function processes(lab: Lab): Promise<void> {
  const arena = await Arena.open(lab, ["perdure"], { ...FULL, rounds: ROUNDS });
  try {
    await compared(arena, ROUNDS);
  } finally {
    await arena.clear();
  }
}
