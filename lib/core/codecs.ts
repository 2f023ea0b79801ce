/** Codecs that an application hands in, checked at the door. */
import { PerdureError } from "./errors.ts";
import { attempt, checkArray, isArray, shorten } from "./options.ts";
import type { Codec } from "./stored-place.ts";

const NAME = /^[a-z][a-z0-9-]{0,62}$/;

/** The codecs in the order in which they are applied. Throws PERDURE_OPTION or PERDURE_DUPLICATE, beginning with `what`. */
export function checkCodecs(given: Codec | readonly Codec[], what: string): readonly Codec[] {
  const codecs = isArray(given) ? checkArray(given as readonly Codec[], what) : [given as Codec];
  for (const codec of codecs) checkCodec(codec, what);
  const names = codecs.map(({ name }) => name);
  const twice = names.find((name, at) => names.indexOf(name) !== at);
  if (twice !== undefined) {
    throw new PerdureError("PERDURE_DUPLICATE", `${what} holds two named "${twice}"; rows could not tell them apart`);
  }
  const hashing = codecs.filter(({ hash }) => hash !== undefined).map(({ name }) => `"${name}"`);
  if (hashing.length > 1) {
    const text = `${what}: ${hashing.join(" and ")} both have a hash(); leave it out of all but one`;
    throw new PerdureError("PERDURE_OPTION", text);
  }
  return codecs;
}

function checkCodec(codec: Codec, what: string): void {
  const problem = attempt(() => problemOf(codec)) ?? "is no codec";
  if (problem === "") return;
  const text = `${what} holds ${shorten(codec)}, which ${problem}; encryption() and compression() of perdure/codec make codecs`;
  throw new PerdureError("PERDURE_OPTION", text);
}

/** Empty: none. */
function problemOf({ name, encode, decode, hash, plaintext }: Codec): string {
  if (typeof name !== "string" || !NAME.test(name)) {
    return `needs a name of lower-case letters, digits and hyphens, at most 63, not ${shorten(name)}`;
  }
  if (typeof encode !== "function" || typeof decode !== "function") return "needs the functions encode and decode";
  if (hash !== undefined && typeof hash !== "function") return "has a hash that is no function";
  return plaintext === undefined || ["accept", "refuse"].includes(plaintext)
    ? ""
    : 'has a plaintext that is neither "accept" nor "refuse"';
}
