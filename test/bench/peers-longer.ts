/** The scenarios that a file of their own tries, for each file has two minutes. */
import type { Printed } from "../support/scenario.ts";

export const LONGER: Readonly<Record<string, readonly Printed[]>> = {
  processes: [["one-step runs/s", false]],
  memory: [["each of", false]],
  scale: [["one-step runs/s", false]],
};
