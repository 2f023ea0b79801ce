/** The questions of bench:peers, by name. */
import type { Arena } from "./arena.ts";
import { oneStep, tenSteps } from "./scenarios/drain.ts";
import { idle } from "./scenarios/idle.ts";
import { latency } from "./scenarios/latency.ts";
import { memory } from "./scenarios/memory.ts";
import { processes } from "./scenarios/processes.ts";
import { scale } from "./scenarios/scale.ts";
import { takeover } from "./scenarios/takeover.ts";

export const SCENARIOS: Readonly<Record<string, (arena: Arena) => Promise<void>>> = {
  drain: oneStep,
  "drain-ten": tenSteps,
  latency,
  idle,
  takeover,
  processes,
  memory,
  scale,
};

/** This one takes many minutes of its own. */
export const BY_NAME: readonly string[] = ["scale"];
