/** The end of a process by a signal: the engines that listen shut down, then the signal has its usual effect. */

/** Engines that are shutting down by a signal. */
let ending = 0;
const told: (() => void)[] = [];

/**
 * Shuts an engine down, and raises the signal again with the last one. Our listeners are gone by then, so the process has the exit status that its
 * parent expects. `shutdown` is given what resolves after that, in a program that listens too and goes on: those who wait for something are
 * told only then, as a program that ends prints no error for it.
 */
export async function endBy(signal: NodeJS.Signals, shutdown: (raised: Promise<void>) => Promise<void>): Promise<void> {
  ending += 1;
  const raised = new Promise<void>((resolve) => {
    told.push(resolve);
  });
  try {
    await shutdown(raised);
  } finally {
    ending -= 1;
  }
  if (ending > 0) return;
  process.kill(process.pid, signal);
  // Other listeners are called in a later turn.
  setImmediate(() => {
    for (const tell of told.splice(0)) tell();
  });
}
