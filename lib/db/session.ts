/** One LISTEN session, used once: it lives until its first failure and never comes back by itself. */
import pg from "pg";
import { within } from "./deadline.ts";
import { type Direct, direct, hangUp } from "./direct.ts";
import { type Line, openLine } from "./line.ts";

export interface SessionOptions {
  config: object;
  /** Settings of the session, as the server's command line takes them. */
  options?: string;
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

export function openSession({ config, options, channel, onNotification, onLost }: SessionOptions): Session {
  const connection = direct(config, "perdure listener", options);
  const beat = `${channel}_beat`;
  let over = false;
  const line = openLine({
    config: connection.config,
    channel,
    onNotification,
    onLost: (cause) => over || onLost(new Error("the connection has ended", { cause })),
  });
  const close = (goodbyeMs?: number): Promise<void> => {
    over = true;
    return hangUp(async () => (await line).close(), connection, goodbyeMs);
  };
  return {
    start: async () => start(await line, channel, over),
    touch: async () => touch(await line, beat),
    notify: async (payload) => (await line).notify(payload),
    end: () => close(),
    cut: () => close(0),
  };
}

async function start(line: Line, channel: string, over: boolean): Promise<void> {
  // What was closed while the driver was loaded opens no socket.
  if (over) throw new Error("closed");
  await line.connect();
  await line.listen(channel);
}

// A line is lent for LISTEN, UNLISTEN and NOTIFY only, and only a NOTIFY takes the database's commit lock.
async function touch(line: Line, channel: string): Promise<void> {
  await (line.listensTo(channel) ? line.unlisten(channel) : line.listen(channel));
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
