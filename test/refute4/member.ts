/** A worker in a process of its own, to be killed while it records that it let a child go on. */
import { client, worker, workflow } from "../../lib/aiki/index.ts";

export const nappingV1 = workflow({ name: "napping" }).v("1", { handler: (run) => run.sleep("nap", 500) });
export const resumingV1 = workflow({ name: "resuming" }).v("1", {
  async handler(run) {
    const child = await nappingV1.startAsChild(run);
    await child.pause();
    await child.resume();
    return (await child.waitForStatus("completed")).success;
  },
});

if (process.argv[2] === "member") {
  const logger = { debug() {}, info() {}, warn() {}, error() {} };
  const aiki = client({ database: process.argv[3]!, schema: process.argv[4]!, lease: "1s", logger });
  await worker({ workflows: [resumingV1, nappingV1] }).start(aiki);
}
