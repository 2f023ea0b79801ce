/** The worker's death certificate: a session advisory lock on its id. As long as the lock is held, the worker is alive. */
import pg from "pg";
import { PerdureError } from "../core/errors.ts";
import { pause, within } from "./deadline.ts";
import { connectDeadline, direct, hangUp } from "./direct.ts";
import { TYPES } from "./reading.ts";
import { keepReconnecting, type Life, type OnTrouble, type Reconnect } from "./reconnect.ts";

/** No answer by then: the connection is replaced. */
const DEADLINE_MS = 2000;
/** The wait between two tries for the lock while an old backend of this worker still holds it. */
const RETRY_MS = 25;
/** How long a launch waits for the lock. */
const LOCK_MS = 30_000;

export interface CertificateOptions {
  /** The pg client config of a direct connection (host, port, …). */
  config: object;
  /** The worker's id, a bigint as text. */
  lock: string;
  /** For the logger; at most once per outage. */
  onTrouble?: OnTrouble;
}

export interface Statement {
  name?: string;
  text: string;
  values?: unknown[];
  types?: typeof TYPES;
}

export interface Certificate {
  /** Resolves when the lock is held for the first time, or when closed. Never rejects. */
  readonly ready: Promise<void>;
  readonly held: boolean;
  /** For heartbeats. Rejects at once while there is no connection; without an answer in 2 s the connection is replaced. */
  query(statement: Statement): Promise<{ rows: any[] }>;
  /** Releases the lock. */
  close(): Promise<void>;
}

const TAKE = "select pg_try_advisory_lock($1::bigint) as taken";

// Plain session settings, as this session is nobody else's. A server without one of them skips it.
const SETTINGS = `select set_config(name, wanted, false)
from pg_settings join (values
  ('tcp_keepalives_idle', '10'), ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3'),
  ('statement_timeout', '5s'), ('lock_timeout', '2s'), ('idle_in_transaction_session_timeout', '10s'),
  ('idle_session_timeout', '0'), ('default_transaction_isolation', 'read committed')
) as wish (name, wanted) using (name)`;

// On its own: where the platform cannot do it, setting it is an error.
const NOTICE_LOSS = `select set_config(name, '1s', false) from pg_settings where name = 'client_connection_check_interval'`;

/** Returns at once; takes the lock in the background, and again whenever the connection was lost. */
export function holdCertificate(options: CertificateOptions): Certificate {
  return new HeldCertificate(options);
}

class HeldCertificate implements Certificate {
  readonly ready: Promise<void>;
  held = false;
  readonly #options: CertificateOptions;
  readonly #loop: Reconnect;
  #settleReady: () => void = () => undefined;
  #client: pg.Client | undefined;
  #life: Life | undefined;
  #lastQuery: Promise<unknown> = Promise.resolve();

  constructor(options: CertificateOptions) {
    this.#options = options;
    this.ready = new Promise((resolve) => {
      this.#settleReady = resolve;
    });
    this.#loop = keepReconnecting({
      live: (life) => this.#live(life),
      share: 1 / 2,
      leastMs: 10,
      mostMs: 1000,
      onTrouble: (error) => this.#options.onTrouble?.("The connection that holds the worker's lock is lost", error),
    });
  }

  async #live(life: Life): Promise<void> {
    const connection = direct(this.#options.config, "perdure worker");
    const client = new pg.Client(connection.config);
    client.on("error", (error) => life.fail(error));
    client.on("end", () => life.fail(new Error("the connection has ended")));
    try {
      await within(client.connect(), connectDeadline(DEADLINE_MS, life.outageMs), "connect", life.signal);
      this.#open(client, life);
      await this.#hold(life);
    } finally {
      this.#shut();
      await hangUp(() => client.end(), connection, life.stopping ? undefined : 0);
    }
  }

  #open(client: pg.Client, life: Life): void {
    this.#client = client;
    this.#life = life;
    this.#lastQuery = Promise.resolve();
    life.signal.addEventListener("abort", () => this.#shut(), { once: true });
  }

  #shut(): void {
    this.held = false;
    this.#client = undefined;
    this.#life = undefined;
  }

  async #hold(life: Life): Promise<void> {
    while (!(await this.#take())) await pause(RETRY_MS * (1 + Math.random()), life.signal);
    this.held = true;
    life.healthy();
    this.#settleReady();
    await this.#set(SETTINGS);
    await this.#set(NOTICE_LOSS);
    await aborted(life.signal);
  }

  async #take(): Promise<boolean> {
    const { rows } = await this.query({ text: TAKE, values: [this.#options.lock], types: TYPES });
    return rows[0].taken;
  }

  // A server that refuses a setting still holds the lock.
  async #set(text: string): Promise<void> {
    await this.query({ text }).catch(() => undefined);
  }

  async query(statement: Statement): Promise<{ rows: any[] }> {
    const [client, life] = [this.#client, this.#life];
    if (!client || !life) throw new Error("the worker's own connection is not there; it is being re-made");
    const answer = this.#lastQuery.then(() => client.query(statement));
    this.#lastQuery = answer.catch(() => undefined);
    try {
      return await within(answer, DEADLINE_MS, "the worker's own connection", life.signal);
    } catch (error) {
      if (!(error instanceof pg.DatabaseError)) life.fail(error);
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#loop.stop();
    this.#settleReady();
  }
}

/** Rejects once the signal is aborted, with its reason. */
function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

/** Resolves when the lock is held for the first time. Throws PERDURE_CONNECTION when it is not in time. */
export async function lockHeld({ ready }: Certificate): Promise<void> {
  await within(ready, LOCK_MS, "the worker's own connection").catch((cause: unknown) => {
    const text = `the connection that holds this worker's lock was not made within ${LOCK_MS} ms; check that the server has one left, and \`listenUrl\` where it is given`;
    throw new PerdureError("PERDURE_CONNECTION", text, { cause });
  });
}
