/** Hints for other processes, sent after the commit and gathered, as every notifying commit takes a lock of the whole database. */
import { createHash } from "node:crypto";
import { pause, within } from "./deadline.ts";

/** A send that takes longer is given up: hints are only hints. */
const GIVE_UP_MS = 1000;

/** What whoever is hinted looks at; one letter each, so that a payload stays short and never carries a name. */
export type Hint = "w" | "d" | "c" | "v" | "b" | "n";

export interface NotifierOptions {
  /** Sends one notification; a failure is dropped. */
  send: (payload: string) => Promise<void>;
  /** The least time between two sends. Default 10 ms. */
  minGapMs?: number;
}

export interface Notifier {
  /** Sends at once, or gathers while the last send or its gap lasts. Never throws. */
  hint(kind: Hint): void;
  /** The caller sends the next one by itself: the gap begins. What is returned tells whether it was sent; if not, the gap ends. Null: it is too soon, or too late. */
  takeTurn(): ((sent: boolean) => void) | null;
  /** Sends what is gathered, and no more afterwards. */
  close(): Promise<void>;
}

const channels = new Map<string, string>();

/** The channel of a schema: as long for any name, as a channel is limited to 63 bytes. */
export function channelOf(schema: string): string {
  const known = channels.get(schema);
  if (known) return known;
  const channel = `perdure_${createHash("sha256").update(schema).digest("hex").slice(0, 16)}`;
  channels.set(schema, channel);
  return channel;
}

export function createNotifier(options: NotifierOptions): Notifier {
  return new CoalescingNotifier(options);
}

class CoalescingNotifier implements Notifier {
  readonly #send: (payload: string) => Promise<void>;
  readonly #minGapMs: number;
  readonly #closing = new AbortController();
  readonly #gathered = new Set<Hint>();
  #sending: Promise<void> | undefined;

  constructor({ send, minGapMs = 10 }: NotifierOptions) {
    this.#send = send;
    this.#minGapMs = minGapMs;
  }

  hint(kind: Hint): void {
    if (this.#closing.signal.aborted) return;
    this.#gathered.add(kind);
    this.#sending ??= this.#sendAll();
  }

  takeTurn(): ((sent: boolean) => void) | null {
    if (this.#sending || this.#closing.signal.aborted) return null;
    let end = (): void => {};
    const unsent = new Promise<void>((resolve) => {
      end = resolve;
    });
    this.#sending = this.#sendAll(Promise.race([pause(this.#minGapMs, this.#closing.signal), unsent]));
    return (sent) => sent || end();
  }

  // What one commit hints in one go travels in one notification.
  async #sendAll(gap: Promise<void> = Promise.resolve()): Promise<void> {
    await gap;
    while (this.#gathered.size > 0) {
      await Promise.all([this.#sendOne(), pause(this.#minGapMs, this.#closing.signal)]);
    }
    this.#sending = undefined;
  }

  async #sendOne(): Promise<void> {
    const payload = [...this.#gathered].sort().join("");
    this.#gathered.clear();
    try {
      await within(this.#send(payload), GIVE_UP_MS, "hint");
    } catch {
      // Whoever is not woken looks anyway, later.
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#sending;
  }
}
