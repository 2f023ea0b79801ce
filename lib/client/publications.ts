/** What runs have published, for all readers of this process: told by its own commits, or by hints, and looking again behind both. */
import { PerdureError } from "../core/errors.ts";
import { isConnectionLost, isTransient, toPerdureError } from "../db/pg-errors.ts";
import type { Published, Reading, Store } from "../db/store.ts";
import { notFound } from "./control.ts";

export interface PublicationsOptions {
  readonly store: Pick<Store, "readPublished">;
  /** This process reads what others publish, or does not any more. Resolves when the database knows: true, if it did not know before. */
  readonly onReading: (reading: boolean) => Promise<boolean>;
}

/** A page of a stream, or the latest of a value. */
export interface Page {
  readonly entries: readonly { readonly pos: number; readonly value: string | null }[];
  /** The run has ended, and this is the last page. Null: there is no such run. */
  readonly ended: boolean | null;
}

/** Per reader and page. */
const ROWS = 500;
/** For all pages of a look together. */
const BYTES = 4 * 1024 * 1024;
/** A look follows the last by at least this long. */
const GAP_MS = 4;
const POLL_MS = 2000;

/** One reader: where it is, and who waits for its next page. Holds no page itself, so that a slow consumer costs nothing. */
export class Subscription {
  readonly #publications: Publications;
  reading: Reading;
  /** The run's key; null: not known yet. */
  key: string | null = null;
  /** There may be something that no look has seen. */
  stale = true;
  waiter: { readonly resolve: (page: Page | null) => void; readonly reject: (error: PerdureError) => void } | undefined;

  constructor(publications: Publications, reading: Reading) {
    this.#publications = publications;
    this.reading = reading;
  }

  /** The next page from a place on, once there is something on it; null: the subscription was ended. */
  page(from: number): Promise<Page | null> {
    this.reading = { ...this.reading, from };
    return this.#publications.wait(this);
  }

  end(): void {
    this.#publications.end(this);
  }
}

export class Publications {
  readonly #options: PublicationsOptions;
  readonly #open = new Set<Subscription>();
  readonly #waiting = new Set<Subscription>();
  #looking = false;
  #poll: NodeJS.Timeout | undefined;
  /** Rejects once the readers may know. */
  #closed: Promise<never> | undefined;

  constructor(options: PublicationsOptions) {
    this.#options = options;
  }

  /** The latest of a value that there is; undefined: it was never set. */
  async latest(run: string, name: string): Promise<string | undefined> {
    const [row] = await this.#options.store.readPublished([{ run, kind: "value", name, from: 0 }], 1, BYTES);
    if (row!.ended === null) notFound(run);
    return row!.value ?? undefined;
  }

  open(reading: Reading): Subscription {
    const subscription = new Subscription(this, reading);
    this.#open.add(subscription);
    return subscription;
  }

  end(subscription: Subscription): void {
    this.#open.delete(subscription);
    this.#settle(subscription, ({ resolve }) => resolve(null));
  }

  wait(subscription: Subscription): Promise<Page | null> {
    if (this.#closed) return this.#closed;
    if (!this.#open.has(subscription)) return Promise.resolve(null);
    return new Promise((resolve, reject) => {
      subscription.waiter = { resolve, reject };
      this.#waiting.add(subscription);
      this.#poll ??= setInterval(() => this.look(), POLL_MS);
      if (subscription.stale) this.#start();
      else void this.#listen();
    });
  }

  /** Something may have been published anywhere, or a run have ended. */
  look(): void {
    for (const subscription of this.#open) subscription.stale = true;
    this.#start();
  }

  /** These runs have published, or ended, in this process. */
  touched(keys: ReadonlySet<string>): void {
    for (const subscription of this.#open) {
      if (subscription.key === null || keys.has(subscription.key)) subscription.stale = true;
    }
    this.#start();
  }

  #start(): void {
    if (!this.#looking && !this.#closed && this.#due().length > 0) void this.#look();
  }

  #due(): Subscription[] {
    return [...this.#waiting].filter(({ stale }) => stale);
  }

  async #look(): Promise<void> {
    this.#looking = true;
    for (let due = this.#due(); due.length > 0; due = this.#due()) {
      // What comes from here on may not be in the answer.
      for (const subscription of due) subscription.stale = false;
      const readings = due.map(({ reading }) => reading);
      const bytes = Math.ceil(BYTES / readings.length);
      const found = await this.#options.store
        .readPublished(readings, ROWS, bytes)
        .catch((error) => this.#failed(error));
      if (!found) break;
      this.#deliver(due, found);
      if (this.#waiting.size > 0) await this.#listen();
      await new Promise((resolve) => setTimeout(resolve, GAP_MS));
    }
    this.#looking = false;
  }

  /** Others shall tell. What came before they knew is looked for. */
  async #listen(): Promise<void> {
    if (await this.#options.onReading(true).catch(() => false)) this.look();
  }

  #deliver(due: readonly Subscription[], rows: readonly Published[]): void {
    const pages = due.map((): Published[] => []);
    for (const row of rows) pages[row.ord - 1]!.push(row);
    for (const [at, subscription] of due.entries()) this.#give(subscription, pages[at]!);
  }

  #give(subscription: Subscription, rows: readonly Published[]): void {
    const { key, ended, more } = rows[0]!;
    subscription.key = key;
    if (more) subscription.stale = true;
    const entries = rows.filter(({ pos }) => pos !== null).map(({ pos, value }) => ({ pos: pos!, value }));
    if (entries.length === 0 && ended === false) return;
    this.#settle(subscription, ({ resolve }) => resolve({ entries, ended: ended && !more }));
  }

  #settle(subscription: Subscription, how: (waiter: NonNullable<Subscription["waiter"]>) => void): void {
    const { waiter } = subscription;
    subscription.waiter = undefined;
    this.#waiting.delete(subscription);
    if (waiter) how(waiter);
    if (this.#waiting.size === 0) this.#rest();
  }

  /** An outage is waited for: another look follows. What the server refuses, it would refuse again. */
  #failed(error: unknown): undefined {
    for (const subscription of this.#waiting) subscription.stale = true;
    if (!isConnectionLost(error) && !isTransient(error) && !this.#closed) {
      this.#rejectAll(toPerdureError(error, "reading what runs have published"));
    }
  }

  #rejectAll(error: PerdureError): void {
    for (const subscription of [...this.#waiting]) this.#settle(subscription, ({ reject }) => reject(error));
  }

  #rest(): void {
    clearInterval(this.#poll);
    this.#poll = undefined;
    void this.#options.onReading(false).catch(() => {});
  }

  /** Gives up all reading. Readers are told at once, or when `over` resolves. */
  close(over?: Promise<void>): void {
    clearInterval(this.#poll);
    this.#closed ??= over ? over.then(() => Promise.reject(closed())) : Promise.reject(closed());
    this.#closed.catch((error: PerdureError) => this.#rejectAll(error));
  }
}

function closed(): PerdureError {
  const text = "this engine was shut down, so it reads nothing any more; the run goes on where another serves it";
  return new PerdureError("PERDURE_STATE", text);
}
