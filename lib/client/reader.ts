/** Values and streams of a run as an application reads them: pages are fetched when they are asked for, so nothing piles up. */
import { PerdureError } from "../core/errors.ts";
import { checkInteger, checkKeys, checkSignal, shorten } from "../core/options.ts";
import type { StoredCodec } from "../core/stored.ts";
import { type Ancestors, type Place, publishedIn } from "../core/stored-place.ts";
import type { PublicationDefinition } from "../core/types.ts";
import { notFound } from "./control.ts";
import { explain } from "./explain.ts";
import type { Page, Publications, Subscription } from "./publications.ts";

/** A value as `value()` returns it. */
export interface ValueLike<T> {
  readonly name: string;
  /** Publishes the newest state. */
  set(value: T): Promise<void>;
}

/** A stream as `stream()` returns it. */
export interface StreamLike<T> {
  readonly name: string;
  /** Publishes one item. */
  write(item: T): Promise<void>;
}

/** What `watch()` may be told. */
export interface WatchOptions {
  /** Ends the reading with the signal's reason, also while it waits: when a browser has gone, for example. */
  signal?: AbortSignal | undefined;
}

/** What `read()` may be told. */
export interface ReadOptions extends WatchOptions {
  /** The first item to read, counted from 0. Default 0. */
  from?: number | undefined;
}

export interface ReaderParts {
  readonly publications: Publications;
  readonly codec: StoredCodec;
  /** The runs that a run was forked from. Asked only where values are bound to their run. */
  readonly ancestors: (run: string) => Promise<Ancestors>;
  readonly publicationOf: (given: unknown) => PublicationDefinition | undefined;
  /** Throws PERDURE_STATE once the engine is shut down. */
  readonly checkLive: () => void;
}

/** Postgres counts in 32 bits. */
const LAST = 2 ** 31 - 1;

/** The latest of a value; undefined: it was never set. */
export async function latestOf(run: string, value: unknown, parts: ReaderParts): Promise<unknown> {
  const name = nameOf("value", value, "get()", parts);
  const text = await explain(`reading value "${name}" of run "${run}"`, () => parts.publications.latest(run, name));
  if (text === undefined) return undefined;
  return parts.codec.decode(text, `value "${name}" of run "${run}"`, await placeFor(run, "value", name, parts));
}

/** The latest of a value, then each newer latest. */
export function watchValue(
  run: string,
  value: unknown,
  options: WatchOptions,
  parts: ReaderParts,
): AsyncIterable<unknown> {
  const name = nameOf("value", value, "watch()", parts);
  const where = `watch() of value "${name}"`;
  const { signal } = checkKeys(options, ["signal"], where);
  return iterable({ run, kind: "value", name, from: 0 }, checkSignal(signal, where), parts);
}

/** The items of a stream. */
export function readStream(
  run: string,
  stream: unknown,
  options: ReadOptions,
  parts: ReaderParts,
): AsyncIterable<unknown> {
  const name = nameOf("stream", stream, "read()", parts);
  const where = `read() of stream "${name}"`;
  const { from = 0, signal } = checkKeys(options, ["from", "signal"], where);
  const start: Start = { run, kind: "stream", name, from: checkInteger(from, `from of ${where}`, 0, LAST) };
  return iterable(start, checkSignal(signal, where), parts);
}

async function placeFor(
  run: string,
  kind: string,
  name: string,
  { codec, ancestors }: Pick<ReaderParts, "codec" | "ancestors">,
): Promise<Place> {
  if (!codec.binds) return publishedIn(run, kind, name);
  const from = await explain(`reading ${kind} "${name}" of run "${run}"`, () => ancestors(run));
  return publishedIn(run, kind, name, from);
}

function nameOf(kind: "value" | "stream", given: unknown, call: string, { publicationOf }: ReaderParts): string {
  const definition = publicationOf(given);
  if (definition?.kind === kind) return definition.name;
  const what = definition ? `${definition.kind} "${definition.name}"` : shorten(given);
  const other = kind === "value" ? "read() reads a stream" : "get() and watch() read a value";
  const help = definition ? `; ${other}` : "";
  throw new PerdureError("PERDURE_OPTION", `${call} needs a ${kind} made by ${kind}(), not ${what}${help}`);
}

type Start = Parameters<Publications["open"]>[0];

/** Each iteration reads by itself, from the same place on. */
function iterable(start: Start, signal: AbortSignal | undefined, parts: ReaderParts): AsyncIterable<unknown> {
  parts.checkLive();
  return {
    [Symbol.asyncIterator]: () => {
      parts.checkLive();
      return new Reader(start, signal, parts);
    },
  };
}

const DONE: IteratorReturnResult<undefined> = { done: true, value: undefined };

class Reader implements AsyncIterator<unknown, undefined> {
  readonly #run: string;
  readonly #codec: StoredCodec;
  readonly #findPlace: () => Promise<Place>;
  #place: Place | undefined;
  readonly #subscription: Subscription;
  readonly #what: (pos: number) => string;
  #page: Page = { entries: [], ended: false };
  /** How far the page is read. */
  #at = 0;
  #from: number;
  #over = false;
  readonly #signal: AbortSignal | undefined;
  /** Heard until the reading ends. */
  readonly #aborted = (): void => this.#subscription.end();
  /** Calls of next() take turns. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(start: Start, signal: AbortSignal | undefined, parts: ReaderParts) {
    const { publications, codec } = parts;
    const { run, kind, name, from } = start;
    this.#run = run;
    this.#codec = codec;
    this.#findPlace = () => placeFor(run, kind, name, parts);
    this.#from = from;
    this.#what = (pos) =>
      kind === "value" ? `value "${name}" of run "${run}"` : `item ${pos} of stream "${name}" of run "${run}"`;
    this.#subscription = publications.open(start);
    this.#signal = signal;
    signal?.addEventListener("abort", this.#aborted);
  }

  next(): Promise<IteratorResult<unknown, undefined>> {
    const next = this.#turn.then(() => this.#next());
    this.#turn = next.catch(() => {});
    return next;
  }

  async return(): Promise<IteratorResult<unknown, undefined>> {
    return this.#end();
  }

  #end(): IteratorReturnResult<undefined> {
    this.#over = true;
    this.#signal?.removeEventListener("abort", this.#aborted);
    this.#subscription.end();
    return DONE;
  }

  async #next(): Promise<IteratorResult<unknown, undefined>> {
    try {
      if (!this.#over) this.#signal?.throwIfAborted();
      while (!this.#over && this.#at === this.#page.entries.length) {
        if (this.#page.ended) return this.#end();
        const page = await this.#subscription.page(this.#from);
        if (!this.#over) this.#signal?.throwIfAborted();
        if (!page) return this.#end();
        if (page.ended === null) notFound(this.#run);
        this.#page = page;
        this.#at = 0;
      }
      if (this.#over) return DONE;
      const { pos, value } = this.#page.entries[this.#at]!;
      if (value === null) return this.#end();
      this.#place ??= await this.#findPlace();
      this.#at += 1;
      this.#from = pos + 1;
      return { done: false, value: this.#codec.decode(value, this.#what(pos), this.#place) };
    } catch (error) {
      this.#end();
      throw error;
    }
  }
}
