/** A worker in a process of its own, to be killed: it hangs in the second try of its second task, and says so. */
import { client, task, worker, workflow } from "../../lib/aiki/index.ts";

/** A first task, then one that fails once and is tried again: `enter` is told of each try, and may hang. */
export function shaky(enter: (what: string) => Promise<void>) {
  const first = task({ name: "first", handler: () => enter("first") });
  const second = task({
    name: "second",
    retry: { type: "fixed", maxAttempts: 2, delayMs: 1 },
    async handler(order: string, { attempt }) {
      await enter(`second ${attempt}`);
      if (attempt === 1) throw new Error("once");
      return `${order} in try ${attempt}`;
    },
  });
  const shakyV1 = workflow({ name: "shaky" }).v("1.0.0", {
    async handler(run, order: string) {
      await first.start(run);
      return second.start(run, order);
    },
  });
  return shakyV1;
}

if (process.argv[2] === "member") {
  const shakyV1 = shaky((what) => {
    process.send!(what);
    return what === "second 2" ? new Promise(() => {}) : Promise.resolve();
  });
  await worker({ workflows: [shakyV1] }).start(client({ database: process.argv[3]!, schema: process.argv[4]! }));
}
