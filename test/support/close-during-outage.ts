/** A process that opens a listener and a certificate towards argv's port, closes both after a moment, and must then exit by itself. */
import { setTimeout as sleep } from "node:timers/promises";
import { holdCertificate } from "../../lib/db/certificate.ts";
import { openListener } from "../../lib/db/listener.ts";

const [port, moment] = process.argv.slice(2).map(Number);
const config = { host: "127.0.0.1", port, user: "postgres", database: "postgres", application_name: "outage child" };
const listener = openListener({
  config,
  channel: "perdure_child",
  onHint: () => {},
  onLook: () => {},
  heartbeatMs: 100,
});
const certificate = holdCertificate({ config, lock: "77" });
await sleep(moment);
await Promise.all([listener.close(), certificate.close()]);
process.send?.("closed");
process.disconnect?.();
