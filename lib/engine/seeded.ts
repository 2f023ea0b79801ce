/** Bytes that are the same in every replay: derived from the run and from who asks for the how-manieth time. */
import { createHash } from "node:crypto";

export function seededBytes(runId: string, slot: string): Uint8Array {
  return new Uint8Array(
    createHash("sha256")
      .update(JSON.stringify([runId, slot]))
      .digest()
      .subarray(0, 16),
  );
}
