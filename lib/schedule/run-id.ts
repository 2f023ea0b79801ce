/** The id of the run that a slot starts: who fires twice meets himself. */
import { createHash } from "node:crypto";

const LONGEST = 255;

/** `<name>@<slot>`, the slot as an ISO instant. A name that leaves no room for it is cut, and a hash of the whole added. */
export function slotRunId(name: string, slot: number): string {
  const end = `@${new Date(slot).toISOString()}`;
  if (Buffer.byteLength(name + end) <= LONGEST) return name + end;
  const hash = `~${createHash("sha256").update(name).digest("hex").slice(0, 32)}`;
  let cut = name;
  while (Buffer.byteLength(cut + hash + end) > LONGEST) cut = [...cut].slice(0, -1).join("");
  return cut + hash + end;
}
