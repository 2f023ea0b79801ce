/** The one LISTEN connection of a process: what it hears are hints, and whenever it may have missed some, everyone looks. */
import { randomBytes } from "node:crypto";
import { pause, within } from "./deadline.ts";
import { connectDeadline } from "./direct.ts";
import { isSettingRefused } from "./pg-errors.ts";
import { keepReconnecting, type Life, type OnTrouble, type Reconnect } from "./reconnect.ts";
import { notifyFromOutside, openSession, type Session } from "./session.ts";

/** The first character of every canary; no hint begins with it. */
const CANARY = "~";
/** A frozen process reads nothing, and a session that cannot get rid of its notifications keeps vacuum from the whole database: the server ends it. */
const SETTINGS = "-c tcp_user_timeout=15000";
const SILENCE = "no notification from another connection arrives (is there a transaction-mode pooler in between?)";

export interface ListenerOptions {
  /** The pg client config of a direct connection (host, port, …). */
  config: object;
  channel: string;
  /** Called for every hint. Must be cheap. */
  onHint: (payload: string) => void;
  /** Called after every LISTEN: whoever waits looks, as hints sent meanwhile are gone. */
  onLook: () => void;
  /** For the logger; at most once per outage. */
  onTrouble?: OnTrouble;
  /** Time between round trips through the listening session. Default 5000 ms. */
  heartbeatMs?: number;
  /** No answer by then: the connection is replaced. Default 2000 ms. */
  deadlineMs?: number;
  /** A canary is notified when nothing was heard for this long, or up to a third longer, so that one process's serves for all. Default 30 s. */
  canaryMs?: number;
}

export interface Listener {
  /** Resolves after the first LISTEN and its self-test, whatever that showed, or when closed. Never rejects. */
  readonly ready: Promise<void>;
  /** True while hints arrive. False: only polling finds work. */
  readonly listening: boolean;
  close(): Promise<void>;
}

/** Returns at once; connects in the background, for ever. */
export function openListener(options: ListenerOptions): Listener {
  return new ReconnectingListener(options);
}

class ReconnectingListener implements Listener {
  readonly ready: Promise<void>;
  readonly #options: ListenerOptions;
  readonly #heartbeatMs: number;
  readonly #deadlineMs: number;
  readonly #canaryMs: number;
  readonly #loop: Reconnect;
  #settleReady: () => void = () => undefined;
  #connected = false;
  /** A notification sent from outside has arrived: what lies between here and the server lets LISTEN work. */
  #proved = false;
  #warned = false;
  /** What stands between here and the server takes no settings. */
  #plain = false;
  #blamed = false;
  #canaryAt = 0;
  #expected: { payload: string; arrived: () => void } | undefined;

  constructor(options: ListenerOptions) {
    this.#options = options;
    this.#heartbeatMs = options.heartbeatMs ?? 5000;
    this.#deadlineMs = options.deadlineMs ?? 2000;
    this.#canaryMs = options.canaryMs ?? 30_000;
    this.ready = new Promise((resolve) => {
      this.#settleReady = resolve;
    });
    this.#loop = keepReconnecting({
      live: (life) => this.#live(life),
      share: 1 / 5,
      leastMs: 50,
      mostMs: 5000,
      onTrouble: (error) => this.#tell("The LISTEN connection is lost; polling carries on until it is back", error),
    });
  }

  get listening(): boolean {
    return this.#connected && this.#proved;
  }

  async #live(life: Life): Promise<void> {
    const session = openSession({
      config: this.#options.config,
      options: this.#plain ? "" : SETTINGS,
      channel: this.#options.channel,
      onNotification: (payload) => this.#onNotification(payload),
      onLost: (error) => life.fail(error),
    });
    try {
      await this.#start(session, life);
      await this.#beatUntilLost(session, life);
    } catch (error) {
      this.#plain ||= isSettingRefused(error);
      throw error;
    } finally {
      this.#connected = false;
      await (life.stopping ? session.end() : session.cut());
    }
  }

  async #start(session: Session, life: Life): Promise<void> {
    await within(session.start(), connectDeadline(this.#deadlineMs, life.outageMs), "LISTEN", life.signal);
    this.#connected = true;
    this.#call(this.#options.onLook);
    this.#postponeCanary();
    if (!this.#proved) await this.#prove(life);
    this.#settleReady();
    life.healthy();
  }

  async #beatUntilLost(session: Session, life: Life): Promise<void> {
    for (;;) {
      await pause(this.#heartbeatMs, life.signal);
      life.signal.throwIfAborted();
      await this.#beat(session, life);
    }
  }

  async #beat(session: Session, life: Life): Promise<void> {
    if (performance.now() < this.#canaryAt) {
      return within(session.touch(), this.#deadlineMs, "heartbeat of LISTEN", life.signal);
    }
    this.#postponeCanary();
    if (!this.#proved) return this.#prove(life);
    await this.#canary((payload) => session.notify(payload), life);
  }

  // Through a transaction-mode pooler a session may hear itself and nobody else, so the proof comes from another connection.
  async #prove(life: Life): Promise<void> {
    const { config, channel } = this.#options;
    try {
      await this.#canary((payload) => notifyFromOutside(config, channel, payload, this.#deadlineMs, life.signal), life);
      this.#proved = true;
      this.#warned = false;
    } catch (error) {
      life.signal.throwIfAborted();
      this.#warn(error);
    }
  }

  async #canary(send: (payload: string) => Promise<void>, life: Life): Promise<void> {
    const payload = CANARY + randomBytes(8).toString("hex");
    const arrival = new Promise<void>((resolve) => {
      this.#expected = { payload, arrived: resolve };
    });
    try {
      await within(Promise.all([send(payload), arrival]), this.#deadlineMs, "canary of LISTEN", life.signal);
    } catch (error) {
      this.#proved = false;
      throw error;
    } finally {
      this.#expected = undefined;
    }
  }

  #onNotification(payload: string): void {
    if (this.#proved) this.#postponeCanary();
    if (payload === this.#expected?.payload) this.#expected.arrived();
    if (!payload.startsWith(CANARY)) this.#call(() => this.#options.onHint(payload));
  }

  #postponeCanary(): void {
    this.#canaryAt = performance.now() + this.#canaryMs * (1 + Math.random() / 3);
  }

  #warn(error: unknown): void {
    if (this.#warned) return;
    this.#warned = true;
    this.#tell(`LISTEN is accepted, but ${SILENCE}; polling carries on`, error);
  }

  #tell(message: string, error: unknown): void {
    this.#options.onTrouble?.(message, error);
  }

  // What a user of the listener throws is no trouble of the connection's: it is told once, and the next hint is passed on.
  #call(callback: () => void): void {
    try {
      callback();
    } catch (error) {
      if (!this.#blamed) this.#tell("onHint or onLook has thrown; this is told once", error);
      this.#blamed = true;
    }
  }

  async close(): Promise<void> {
    await this.#loop.stop();
    this.#settleReady();
  }
}
