/** How schedules of this layer are named: after their reference, or what they start, and their definition. */
import { canonicalHash } from "../core/hash.ts";

/** So many bytes leave room for the rest, and for the slot in the ids of runs. */
const LONGEST = 180;

/** What all the schedules of one reference begin with, and no others: no text in a name has a `#`. */
export const byReference = (id: string): string => prefixOf("reference", id);

/** What all the schedules of one version without a reference begin with. */
export const byVersion = (name: string, version: string): string => prefixOf("version", `${name}:${version}`);

function prefixOf(kind: "reference" | "version", text: string): string {
  const written = text.replaceAll("%", "%25").replaceAll("#", "%23");
  return `aiki:${kind}:${Buffer.byteLength(written) <= LONGEST ? written : `#${canonicalHash([text])}`}#`;
}

/** Whether what follows the prefix is a definition's hash, plain or keyed: then the schedule is one of this layer's. */
export const isHash = (rest: string): boolean => /^~?[\w-]{16}$/.test(rest);
