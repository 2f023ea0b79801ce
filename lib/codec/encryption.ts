/** Encryption: AES-256-GCM, a random nonce for each value, keys by id, each value bound to the run and the slot that it belongs to. */
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createSecretKey,
  hkdfSync,
  KeyObject,
  randomBytes,
} from "node:crypto";
import { PerdureError } from "../core/errors.ts";
import { attempt, checkChoice, checkKeys, checkName, isPlainObject, nearest, shorten } from "../core/options.ts";
import type { Codec, CodecContext } from "../core/stored-place.ts";

/** 32 random bytes: a Buffer, base64 text of them, or a KeyObject. `openssl rand -base64 32` makes one. */
export type EncryptionKey = Uint8Array | string | KeyObject;

/** Options of `encryption()`. */
export interface EncryptionOptions {
  /**
   * All keys that stored values may have been encrypted with, by their id, which stands readable beside each value; or a function that has them. A value
   * of a key that is missing blocks its run; the view `codecs` shows which are in use.
   */
  keys: Readonly<Record<string, EncryptionKey>> | ((id: string) => EncryptionKey | undefined);
  /** The id of the key that writes. Null: none yet, everything is written readable; for the first of two deploys. */
  current: string | null;
  /**
   * The key for the hashes of arguments, which stand readable in slots. Default: derived from the first of `keys`. Once that one is to go, give it here: runs
   * that are open need the same, as another one is another address for each of their calls.
   */
  hashKey?: EncryptionKey | undefined;
  /**
   * What becomes of values that are not encrypted: those from before, and what `start_run` and `send_event` bring in from SQL. `"accept"` (default) reads
   * them, so who can write to the tables can forge them; `"refuse"` blocks the run.
   */
  plaintext?: "accept" | "refuse" | undefined;
}

const WHERE = "encryption()";
const NAME = "encrypt";
const FORMAT = 1;
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/**
 * A codec that encrypts with AES-256-GCM. A value that is changed, or moved to another run or slot, is not read. Names, ids, tags, references, states and times
 * stay readable, and so do the reason of a cancellation and the text of why a run is blocked. One key is good for four thousand million values: change it
 * by then.
 *
 * @throws PERDURE_OPTION for keys that are not of 32 bytes, or a `current` that `keys` lacks.
 * @example new Perdure({ codec: encryption({ keys: { "2026-11": process.env.KEY! }, current: "2026-11" }) })
 */
export function encryption(options: EncryptionOptions): Codec {
  const asked = checkKeys(options, ["keys", "current", "hashKey", "plaintext"], WHERE);
  const given = { ...asked, keys: checkKeyring(asked.keys) };
  const plaintext = checkChoice(given.plaintext ?? "accept", ["accept", "refuse"], `plaintext of ${WHERE}`);
  const find = finder(given.keys);
  const hashKey = hashKeyOf(given);
  const need = (id: string): KeyObject => {
    const key = find(id);
    if (key) return key;
    throw new Error(missing(id, given.keys));
  };
  const current = given.current === null ? null : checkCurrent(given, find);
  if (current === null && plaintext === "refuse") {
    const text = `${WHERE} cannot refuse what is not encrypted while current is null, as it writes nothing else`;
    throw new PerdureError("PERDURE_OPTION", text);
  }
  return {
    name: NAME,
    plaintext,
    encode: (data, context) =>
      current === null ? null : { note: current, data: seal(data, need(current), current, context) },
    decode: ({ data, note = "" }, context) => open(data, need(note), note, context),
    // While nothing is encrypted, slots are written as before; those of a process that encrypts already are read.
    hashing: current === null ? "read" : "write",
    hash: (text) => createHmac("sha256", hashKey).update(text).digest("base64url"),
  };
}

/** What a value is bound to, as one text. */
const boundTo = (id: string, { run, slot, before }: CodecContext): Buffer =>
  Buffer.from(JSON.stringify(["perdure", FORMAT, id, run, slot, before]));

/** The format, the nonce, the tag, what is encrypted. */
function seal(data: Uint8Array, key: KeyObject, id: string, context: CodecContext): Uint8Array {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv("aes-256-gcm", key, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(boundTo(id, context));
  const encrypted = cipher.update(data);
  cipher.final();
  return Buffer.concat([Uint8Array.of(FORMAT), nonce, cipher.getAuthTag(), encrypted]);
}

function open(data: Uint8Array, key: KeyObject, id: string, context: CodecContext): Uint8Array {
  if (data[0] !== FORMAT || data.length < 1 + NONCE_BYTES + TAG_BYTES) {
    throw new Error("it is not in a form that encryption() of this version writes");
  }
  const [nonceEnd, tagEnd] = [1 + NONCE_BYTES, 1 + NONCE_BYTES + TAG_BYTES];
  const decipher = createDecipheriv("aes-256-gcm", key, data.subarray(1, nonceEnd), { authTagLength: TAG_BYTES });
  decipher.setAAD(boundTo(id, context));
  decipher.setAuthTag(data.subarray(nonceEnd, tagEnd));
  const plain = decipher.update(data.subarray(tagEnd));
  try {
    decipher.final();
  } catch (cause) {
    const text = `it was changed, comes from another run or slot, or key "${id}" is not the one that it was encrypted with`;
    throw new Error(text, { cause });
  }
  return plain;
}

type Find = (id: string) => KeyObject | undefined;

/** Derived, RFC 5869: a key that encrypts is not used for anything else. */
function hashKeyOf({ keys, hashKey }: EncryptionOptions): Uint8Array {
  const given = hashKey ?? (typeof keys === "function" ? undefined : Object.values(keys)[0]);
  if (given === undefined) {
    const text = `${WHERE} needs a hashKey: by default it is derived from the first of \`keys\`, of which none is known here`;
    throw new PerdureError("PERDURE_OPTION", text);
  }
  const key = toKey(given, `hashKey of ${WHERE}`);
  return new Uint8Array(hkdfSync("sha256", key, "", "perdure hash of arguments", KEY_BYTES));
}

/** The keys, read once. */
function checkKeyring(keys: EncryptionOptions["keys"]): EncryptionOptions["keys"] {
  const copy = attempt(() => (typeof keys === "function" ? keys : isPlainObject(keys) ? { ...keys } : undefined));
  if (copy) return copy;
  const text = `keys of ${WHERE} must be an object of keys by their id, or a function from an id to a key`;
  throw new PerdureError("PERDURE_OPTION", text);
}

function finder(keys: EncryptionOptions["keys"]): Find {
  const checked = (id: string, key: EncryptionKey): KeyObject => toKey(key, `key ${shorten(id)} of ${WHERE}`);
  if (typeof keys === "function") {
    return (id) => {
      const key = keys(id);
      return key === undefined ? undefined : checked(id, key);
    };
  }
  const known = new Map(Object.entries(keys).map(([id, key]) => [checkName(id, "key id"), checked(id, key)]));
  return (id) => known.get(id);
}

function checkCurrent({ keys, current }: EncryptionOptions, find: Find): string {
  const id = checkName(current, `current of ${WHERE}`);
  if (find(id)) return id;
  const meant = nearest(id, idsOf(keys));
  const typo = meant === undefined ? "" : `; did you mean ${shorten(meant)}?`;
  throw new PerdureError("PERDURE_OPTION", `current of ${WHERE}: ${missing(id, keys)}${typo}`);
}

const idsOf = (keys: EncryptionOptions["keys"]): string[] => (typeof keys === "function" ? [] : Object.keys(keys));

function missing(id: string, keys: EncryptionOptions["keys"]): string {
  const known = idsOf(keys);
  const has = known.length > 0 ? ` (they are ${known.map(shorten).join(", ")})` : "";
  return `key ${shorten(id)} is not among the keys of ${WHERE}${has}`;
}

/** What was given may be a key: no message shows it. */
function toKey(given: unknown, what: string): KeyObject {
  const key = attempt(() => {
    if (given instanceof KeyObject) return given.type === "secret" ? given : undefined;
    if (given instanceof Uint8Array) return createSecretKey(given);
    if (typeof given !== "string") return undefined;
    const bytes = Buffer.from(given, "base64");
    const isBase64 = bytes.toString("base64").replace(/=+$/, "") === given.replace(/=+$/, "");
    return isBase64 ? createSecretKey(bytes) : undefined;
  });
  if (key?.symmetricKeySize === KEY_BYTES) return key;
  const size = key ? `, not of ${key.symmetricKeySize}` : "";
  const text = `${what} must be a key of 32 bytes${size}: a Buffer, base64 text, or a secret KeyObject; openssl rand -base64 32 makes one`;
  throw new PerdureError("PERDURE_OPTION", text);
}
