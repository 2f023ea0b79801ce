/**
 * One LISTEN session over pg-listen, used once: it lives until its first failure and never comes back by itself. pg-listen's
 * own reconnect gives up after 3 s, outlives close() and hangs on a half-open socket, so `retryLimit: 1` keeps it from trying.
 */
import pg from "pg";
import pgListen from "pg-listen";
import { within } from "./deadline.ts";
import { type Direct, direct, hangUp } from "./direct.ts";

export interface SessionOptions {
  config: object;
  channel: string;
  onNotification: (payload: string) => void;
  /** The connection is lost; not called after `end` or `cut`. */
  onLost: (error: unknown) => void;
}

export interface Session {
  /** Connects and listens. */
  start(): Promise<void>;
  /** A round trip through this session that puts nothing into the notification queue. */
  touch(): Promise<void>;
  /** A notification sent by this session itself. */
  notify(payload: string): Promise<void>;
  /** Says goodbye; afterwards there is no socket. */
  end(): Promise<void>;
  /** Destroys the socket at once. */
  cut(): Promise<void>;
}

type Subscriber = ReturnType<typeof pgListen.default>;

const ONE_USE = {
  retryLimit: 1,
  paranoidChecking: false as const,
  parse: (payload: string) => payload,
  serialize: (payload: string) => payload,
};

export function openSession({ config, channel, onNotification, onLost }: SessionOptions): Session {
  const connection = direct(config, "perdure listener");
  const subscriber = pgListen.default(connection.config, ONE_USE);
  subscriber.events.on("error", (cause) => onLost(new Error("the connection has ended", { cause })));
  subscriber.notifications.on(channel, (payload?: string) => onNotification(payload ?? ""));
  return {
    start: () => start(subscriber, channel),
    touch: () => touch(subscriber, `${channel}_beat`),
    notify: async (payload) => void (await subscriber.notify(channel, payload)),
    end: () => hangUp(() => subscriber.close(), connection),
    cut: () => hangUp(() => subscriber.close(), connection, 0),
  };
}

async function start(subscriber: Subscriber, channel: string): Promise<void> {
  await subscriber.connect();
  await subscriber.listenTo(channel);
}

// pg-listen lends its session for LISTEN, UNLISTEN and NOTIFY only, and only a NOTIFY takes the database's commit lock.
async function touch(subscriber: Subscriber, channel: string): Promise<void> {
  const listening = subscriber.getSubscribedChannels().includes(channel);
  await (listening ? subscriber.unlisten(channel) : subscriber.listenTo(channel));
}

/** Sends one notification from a short connection of its own, as any other process would. */
export async function notifyFromOutside(
  config: object,
  channel: string,
  payload: string,
  deadlineMs: number,
  signal: AbortSignal,
): Promise<void> {
  const connection = direct(config, "perdure self-test");
  const client = new pg.Client(connection.config);
  client.on("error", () => undefined);
  try {
    await within(send(client, channel, payload), deadlineMs, "self-test of LISTEN", signal);
  } finally {
    await goodbye(client, connection);
  }
}

async function send(client: pg.Client, channel: string, payload: string): Promise<void> {
  await client.connect();
  await client.query("select pg_notify($1, $2)", [channel, payload]);
}

function goodbye(client: pg.Client, connection: Direct): Promise<void> {
  return hangUp(() => client.end(), connection);
}
