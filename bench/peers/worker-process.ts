/** A process of its own with one contender's worker: tells what its bodies reach, answers what it is asked. */
import { setTimeout as pause } from "node:timers/promises";
import type { Setup, Worker } from "./adapter.ts";
import { loadAdapter } from "./contenders.ts";
import { clock, type Told, tellerTo, type Usage } from "./teller.ts";

const [name, url, setup] = process.argv.slice(2) as [string, string, Setup];

const tell = (told: Told): void => void process.send?.(told);

async function usage(since: NodeJS.CpuUsage): Promise<Usage> {
  const { user, system } = process.cpuUsage(since);
  for (let at = 0; globalThis.gc && at < 5; at += 1) {
    globalThis.gc();
    await pause(50);
  }
  const { heapUsed, external, rss } = process.memoryUsage();
  return { cpu: user + system, rss, heap: heapUsed + external };
}

if (process.send) {
  process.on("disconnect", () => process.exit());
  const adapter = await loadAdapter(name);
  let since = process.cpuUsage();
  const begin = (): void => {
    since = process.cpuUsage();
  };
  let worker: Worker | undefined;
  const answers = {
    go: async () => {
      worker = await adapter.work(url, setup, tellerTo(tell, begin));
      return {};
    },
    usage: () => usage(since),
    once: async () => {
      const start = clock();
      await worker!.once();
      return { ms: clock() - start };
    },
    stop: async () => {
      await worker!.stop();
      process.exit();
    },
  };
  process.on("message", (asked: keyof typeof answers) => {
    answers[asked]().then(
      (answer) => tell({ answer }),
      (error: Error) => tell({ answer: { error: error.stack ?? error.message } }),
    );
  });
  tell({ loaded: true });
}
