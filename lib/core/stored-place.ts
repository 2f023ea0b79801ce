/** Where a stored value belongs, and the seam between a value's text and its column, at which codecs stand. Pure. */
import type { ForkedFrom } from "./claim.ts";

/** What a stored value is bound to. */
export interface CodecPlace {
  /** The run's id. Of the arguments of a schedule: empty. */
  readonly run: string;
  /**
   * What it is in its run: `input`, `result`, the slot of a step as `history()` shows it, an event, a value or a stream by its name.
   * Of a schedule: `schedule:` and its name.
   */
  readonly slot: string;
}

/** What a codec is told beside the bytes. */
export interface CodecContext extends CodecPlace {
  /** The codecs that were applied before this one, as they stand in the row: `compress:br`. Authenticate it along with the place. */
  readonly before: string;
}

/** What a codec made of bytes. */
export interface Encoded {
  /** What is stored in place of the value. */
  readonly data: Uint8Array;
  /** Stands readable in the row behind the codec's name, `encrypt:2026-11`, and is given back to `decode`: the id of a key, a method. At most 255 bytes. */
  readonly note?: string | undefined;
}

/**
 * What `new Perdure({ codec })` puts between values and their columns. All of it is synchronous: a codec that asks a key service fetches its keys
 * before the engine is made, and keeps them. The limit of 1 MiB counts the text before any codec.
 */
export interface Codec {
  /** Stands in every row that it wrote, so it never changes: lower-case letters, digits and hyphens, at most 63. */
  readonly name: string;
  /** The bytes to store; null: they stay as they are, and reading them does not ask this codec. What it throws refuses the value. */
  encode(data: Uint8Array, context: CodecContext): Encoded | null;
  /** What `encode` was given. It throws for another place, another key, and bytes that were changed: the run is blocked then, and loses nothing. */
  decode(encoded: Encoded, context: CodecContext): Uint8Array;
  /**
   * A keyed hash of a text: at least 16 characters of base64url, of which 16 are stored. With it, the hashes of arguments (which stand readable in
   * slots) tell nothing about them but which are equal. It must give the same for as long as runs are open.
   */
  hash?(text: string): string;
  /** `"read"`: runs that have no hash yet are begun without the key, and those that other processes began with it go on. Default `"write"`. */
  readonly hashing?: "write" | "read" | undefined;
  /** `"refuse"`: a value that this codec did not write is not read. Default `"accept"`. */
  readonly plaintext?: "accept" | "refuse" | undefined;
}

/** A place, and those that what stands there may have been copied from: a fork's from its ancestors, a run's input from its schedule. */
export interface Place extends CodecPlace {
  readonly copiedFrom?: readonly CodecPlace[] | undefined;
}

/** The runs that a run was forked from, the nearest first; undefined: none. */
export type Ancestors = readonly string[] | undefined;

export const ancestorsOf = (fork: ForkedFrom | null): Ancestors => fork?.seeds.map(([run]) => run).reverse();

/** What stands in a run, and perhaps in those that it was forked from. */
export function placeIn(run: string, slot: string, ancestors: Ancestors): Place {
  return ancestors ? { run, slot, copiedFrom: ancestors.map((ancestor) => ({ run: ancestor, slot })) } : { run, slot };
}

/** A slot of an attempt of the workflow: one that is opened again is recorded anew. */
export const slotIn = (slot: string, attempt: number): string => (attempt === 1 ? slot : `${slot}~${attempt}`);

/** A try of a step that failed. */
export const tryIn = (slot: string, attempt: number, no: number): string => `${slotIn(slot, attempt)} try ${no}`;

/** What an attempt of the workflow came to. */
export const resultOf = (run: string, attempt: number): Place => ({ run, slot: slotIn("result", attempt) });

/** Event data in a mailbox. `token`: the sender's own for it; null: SQL sent it. */
export const mailOf = (run: string, name: string, token: string | null): Place => ({
  run,
  slot: `event:${JSON.stringify(name)}/${token ?? ""}`,
});

/** A value, or the items of a stream, whose places in it are not known when they are written. */
export const publishedIn = (run: string, kind: string, name: string, ancestors?: Ancestors): Place =>
  placeIn(run, `${kind}:${name}`, ancestors);

/** The arguments of a schedule. */
export const scheduleOf = (name: string): Place => ({ run: "", slot: `schedule:${name}` });

/** The arguments of a run. A scheduled one has those of its schedule. */
export function inputOf(run: string, ancestors?: Ancestors, schedule?: string | null): Place {
  const place = placeIn(run, "input", ancestors);
  return schedule == null ? place : { ...place, copiedFrom: [scheduleOf(schedule), ...(place.copiedFrom ?? [])] };
}
