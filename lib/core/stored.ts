/** Values as they stand in their columns: the text of the value codec, and around it what the engine's codecs make of it. */
import type { ValueCodec } from "./codec.ts";
import { said, type What } from "./codec-refuse.ts";
import { PerdureError } from "./errors.ts";
import { canonicalHash } from "./hash.ts";
import { quietly } from "./quiet.ts";
import type { Codec, CodecPlace, Encoded, Place } from "./stored-place.ts";

/** How the text of what codecs wrote begins. No value codec's text, and nothing that SQL can send, begins so. */
const SEALED = '{"codec":[';
/** Before a keyed hash, so that it is told from a plain one, which is base64url. */
const KEYED = "~";
const HASH_LENGTH = 16;

interface Sealed {
  readonly tags: readonly string[];
  readonly data: Uint8Array;
}

/** The codec of one engine. Without codecs of the application it adds nothing to what the value codec does. */
export class StoredCodec {
  readonly #values: ValueCodec;
  readonly #codecs: readonly Codec[];
  readonly #keyed: ((text: string) => string) | undefined;
  /** Whether hashes of what is new are keyed. */
  readonly writesKeyed: boolean;

  constructor(values: ValueCodec, codecs: readonly Codec[] = []) {
    this.#values = values;
    this.#codecs = codecs;
    const hashing = codecs.find((codec) => codec.hash !== undefined);
    if (hashing) this.#keyed = (text) => hashWith(hashing, text);
    this.writesKeyed = hashing !== undefined && hashing.hashing !== "read";
  }

  /** Whether a value may be bound to its place. */
  get binds(): boolean {
    return this.#codecs.length > 0;
  }

  /** Whether hashes can be keyed. */
  get hasKey(): boolean {
    return this.#keyed !== undefined;
  }

  /** The canonical hash of arguments as this engine stores it. `keyed`: with the key, or without, as other processes do. */
  hash(values: readonly unknown[], what?: () => string, keyed = this.writesKeyed): string {
    return canonicalHash(values, what, keyed ? this.#keyed : undefined);
  }

  /** The text to store: see ValueCodec. Throws PERDURE_SERIALIZE also where a codec throws. */
  encode(value: unknown, what: What, place: CodecPlace): string {
    return this.seal(this.#values.encode(value, what), what, place);
  }

  /** The same of arguments, a list that is the library's own. */
  encodeList(values: readonly unknown[], what: What, place: CodecPlace): string {
    return this.seal(this.#values.encodeList(values, what), what, place);
  }

  /** The value of a stored text: see ValueCodec. Throws PERDURE_DECODE also for what is not of this place. */
  decode(text: string, what: What, place: Place): unknown {
    return this.#values.decode(this.open(text, what, place), what);
  }

  /** What `decode` gives of the text that `encode` has made of a value. */
  copy(value: unknown, text: string, what: What, place: Place): unknown {
    // A primitive comes back as itself, unless a codec of the application may have spoilt it.
    const isSame = this.#codecs.length === 0 && (typeof value !== "object" || value === null);
    return isSame ? value : this.decode(text, what, place);
  }

  /** For settings, which are no data of the application's, and for texts that are opened: no codec sees them. */
  encodePlain(value: unknown, what: What): string {
    return this.#values.encode(value, what);
  }

  decodePlain(text: string, what: What): unknown {
    return this.#values.decode(text, what);
  }

  /** The text to store of what was thrown. Throws only where a codec does. */
  encodeError(error: unknown, what: What, place: CodecPlace): string {
    return this.seal(this.#values.encodeError(error, what), what, place);
  }

  decodeError(text: string, what: What, place: Place): unknown {
    return this.decode(text, what, place);
  }

  /** A text as it is to stand in a column. */
  seal(text: string, what: What, place: CodecPlace): string {
    if (this.#codecs.length === 0) return text;
    const tags: string[] = [];
    let data: Uint8Array = Buffer.from(text);
    for (const codec of this.#codecs) {
      const encoded = encodeWith(codec, data, what, place, tags);
      if (!encoded) continue;
      data = encoded.data;
      tags.push(encoded.note === undefined ? codec.name : `${codec.name}:${encoded.note}`);
    }
    if (tags.length === 0) return text;
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    return `{"codec":${JSON.stringify(tags)},"data":"${bytes.toString("base64")}"}`;
  }

  /** What `seal` was given: for this place, or for one that it may have been copied from. */
  open(text: string, what: What, place: Place): string {
    // A row that somebody meddled with may hold null where a text belongs: the value codec refuses it.
    const sealed = (text as string | null)?.startsWith(SEALED) ? parse(text, what) : null;
    this.#checkPlain(sealed?.tags ?? [], what, place);
    if (!sealed) return text;
    let first: unknown;
    for (const candidate of [place, ...(place.copiedFrom ?? [])]) {
      try {
        return this.#open(sealed, candidate);
      } catch (cause) {
        first ??= cause;
      }
    }
    throw unreadable(what, place, said(first), first);
  }

  #open({ tags, data }: Sealed, { run, slot }: CodecPlace): string {
    let opened = data;
    for (let at = tags.length - 1; at >= 0; at -= 1) {
      const [name, note] = split(tags[at]!);
      const codec = this.#codecs.find((known) => known.name === name);
      if (!codec)
        throw new Error(`codec "${name}" wrote it, and this engine has none of that name: add it to \`codec\``);
      const sealed = { data: opened, note };
      opened = quietly(() => codec.decode(sealed, { run, slot, before: tags.slice(0, at).join(" ") }));
      if (!(opened instanceof Uint8Array)) throw new Error(`codec "${name}" decoded it to no bytes`);
    }
    return Buffer.from(opened.buffer, opened.byteOffset, opened.byteLength).toString();
  }

  #checkPlain(tags: readonly string[], what: What, place: CodecPlace): void {
    for (const { name, plaintext } of this.#codecs) {
      if (plaintext !== "refuse" || tags.some((tag) => split(tag)[0] === name)) continue;
      throw unreadable(what, place, `codec "${name}" did not write it, and its \`plaintext\` is "refuse"`);
    }
  }
}

/** Whether a hash was made without a key. */
export const isPlainHash = (hash: string): boolean => !hash.startsWith(KEYED);

function hashWith(codec: Codec, text: string): string {
  let made: unknown;
  try {
    made = quietly(() => codec.hash!(text));
  } catch (cause) {
    const problem = `codec "${codec.name}" could not hash arguments: ${said(cause)}`;
    throw new PerdureError("PERDURE_SERIALIZE", problem, { cause });
  }
  if (typeof made === "string" && /^[\w-]{16,}$/.test(made)) return KEYED + made.slice(0, HASH_LENGTH);
  const problem = `hash() of codec "${codec.name}" must return at least ${HASH_LENGTH} characters of base64url`;
  throw new PerdureError("PERDURE_OPTION", problem);
}

function encodeWith(codec: Codec, data: Uint8Array, what: What, place: CodecPlace, tags: string[]): Encoded | null {
  const { run, slot } = place;
  try {
    const encoded: unknown = quietly(() => codec.encode(data, { run, slot, before: tags.join(" ") }));
    return encoded === null ? null : checkEncoded(encoded);
  } catch (cause) {
    const text = `${what}: codec "${codec.name}" could not encode it: ${said(cause)}`;
    throw new PerdureError("PERDURE_SERIALIZE", text, { cause });
  }
}

function checkEncoded(given: unknown): Encoded {
  const { data, note } = (given ?? {}) as Partial<Encoded>;
  if (!(data instanceof Uint8Array))
    throw new Error("its encode() must return null or { data: Uint8Array }, and no promise");
  // It stands in a column of json, and in a view.
  const isText = typeof note === "string" && Buffer.byteLength(note) <= 255 && !/[\p{Cc}\p{Cs}]/u.test(note);
  if (note === undefined || isText) return { data, note };
  throw new Error("the note of its encode() must be a text of at most 255 bytes, without control characters");
}

function parse(text: string, what: What): Sealed {
  try {
    const { codec, data } = JSON.parse(text) as { codec: unknown[]; data: unknown };
    if (typeof data !== "string" || !codec.every((tag) => typeof tag === "string")) throw new Error("it is malformed");
    // Packed once it is of a bounded size when it is unpacked.
    if (new Set(codec.map((tag) => split(tag)[0])).size < codec.length) throw new Error("a codec stands twice in it");
    return { tags: codec as string[], data: Buffer.from(data, "base64") };
  } catch (cause) {
    const problem = `${what}: the stored value cannot be read back: ${said(cause)}`;
    throw new PerdureError("PERDURE_DECODE", problem, { cause });
  }
}

function split(tag: string): [name: string, note: string | undefined] {
  const end = tag.indexOf(":");
  return end === -1 ? [tag, undefined] : [tag.slice(0, end), tag.slice(end + 1)];
}

function unreadable(what: What, { run, slot }: CodecPlace, problem: string, cause?: unknown): PerdureError {
  const where = run === "" ? `"${slot}"` : `"${slot}" of run "${run}"`;
  const text = `${what}: the stored value cannot be read back (it is to be ${where}): ${problem}`;
  return new PerdureError("PERDURE_DECODE", text, { cause });
}
