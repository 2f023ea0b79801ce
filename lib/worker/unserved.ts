/** Runs that wait for code which is not deployed wait without end: a person is told of them, at launch and soon after this process has started some. */
import type { Logger, WorkflowDefinition } from "../core/types.ts";
import type { Lane, Store } from "../db/store.ts";
import { unservedText } from "./catalogue.ts";

/** So many workflows, versions and queues that nobody serves are warned of at most. */
const MOST = 20;
/** Heartbeats from the start of a run that is left to others to the look for who serves it: it is committed by then. */
const BEATS = 2;

export interface UnservedOptions {
  readonly store: Pick<Store, "unserved">;
  readonly workflows: ReadonlyMap<string, WorkflowDefinition>;
  /** Who works on nothing leaves it all to others. */
  readonly works: boolean;
  readonly logger: Logger;
}

export class Unserved {
  readonly #options: UnservedOptions;
  /** Lanes that this process does not serve and has started runs in. */
  readonly #met = new Set<string>();
  #beats = 0;

  constructor(options: UnservedOptions) {
    this.#options = options;
  }

  /** A run that this process starts and leaves to others: where its lane is met for the first time, soon it is looked whether others serve it. */
  meet({ workflow, version, queue }: Lane): false {
    if (!this.#options.works) return false;
    const lane = JSON.stringify([workflow, version, queue]);
    if (this.#met.size < MOST && !this.#met.has(lane)) {
      this.#met.add(lane);
      this.#beats = BEATS;
    }
    return false;
  }

  /** A heartbeat got through. */
  beat(): void {
    if (this.#beats > 0 && --this.#beats === 0) void this.warn();
  }

  async warn(): Promise<void> {
    const { store, workflows, works, logger } = this.#options;
    if (!works) return;
    // The engine works without it.
    const lanes = await store.unserved(MOST).catch(() => []);
    if (lanes.length > 0) logger.warn(unservedText(lanes, [...workflows.values()]));
  }
}
