/** Bytes that are the same in every replay: derived from the run and from who asks for the how-manieth time. */
import { createHash } from "node:crypto";
import type { Claim } from "../core/claim.ts";

export function seededBytes(runId: string, slot: string): Uint8Array {
  return new Uint8Array(
    createHash("sha256")
      .update(JSON.stringify([runId, slot]))
      .digest()
      .subarray(0, 16),
  );
}

/** Whose draws the run repeats at a place in the order: a fork those of the run that its history comes from, as far as that goes. */
export function seedOf({ id, fork }: Pick<Claim, "id" | "fork">, place: number): string {
  if (!fork || place >= fork.seeds.at(-1)![1]) return id;
  return fork.seeds.find(([, until]) => place < until)![0];
}
