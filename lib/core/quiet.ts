/** Code that the library calls in the midst of a body and that is not the body's: a logger, a policy. Strict mode lets it be. */

let depth = 0;

/** Runs `work`, up to its first await, as no part of the body around it. */
export function quietly<T>(work: () => T): T {
  depth += 1;
  try {
    return work();
  } finally {
    depth -= 1;
  }
}

/** Whether such code is at work in this very call. */
export const isQuiet = (): boolean => depth > 0;
