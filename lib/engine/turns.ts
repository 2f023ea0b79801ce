/**
 * The turns of the event loop in which passes go on. Those that ask for one before the next share it: an immediate for each would cost
 * more than what most of them do in it.
 */
import { detached } from "../core/context.ts";

export class Turns {
  #next: (() => void)[] = [];

  /** Calls `turn` in the next turn, in the async context of nobody. It must not throw. */
  ask(turn: () => void): void {
    if (this.#next.push(turn) === 1) detached(() => setImmediate(() => this.#go()));
  }

  #go(): void {
    const turns = this.#next;
    this.#next = [];
    for (const turn of turns) turn();
  }
}
