/**
 * The connection under a LISTEN session: pg-listen's, or pg's own where pg-listen cannot be loaded. That is so in a bundle: its
 * dependency pg-format reads a file that lies beside it, and no bundler takes that file along.
 */
import pg from "pg";
import type pgListen from "pg-listen";

export interface LineOptions {
  /** For `new pg.Client`, once. */
  config: object;
  /** The one channel whose notifications are told. */
  channel: string;
  onNotification: (payload: string) => void;
  /** The connection is lost. Also called when it is closed. */
  onLost: (error: unknown) => void;
}

export interface Line {
  connect(): Promise<void>;
  listen(channel: string): Promise<void>;
  unlisten(channel: string): Promise<void>;
  listensTo(channel: string): boolean;
  /** Notifies the channel of this line. */
  notify(payload: string): Promise<void>;
  close(): Promise<void>;
}

type Subscribe = typeof pgListen.default;

// pg-listen's own reconnect gives up after 3 s, outlives close() and hangs on a half-open socket: `retryLimit: 1` keeps it from trying.
const ONE_USE = {
  retryLimit: 1,
  paranoidChecking: false as const,
  parse: (payload: string) => payload,
  serialize: (payload: string) => payload,
};

let loading: Promise<Subscribe | undefined> | undefined;

/** Opens no socket before `connect`. */
export async function openLine(options: LineOptions): Promise<Line> {
  loading ??= import("pg-listen").then(
    (module) => module.default.default,
    () => undefined,
  );
  const subscribe = await loading;
  return subscribe ? subscriberLine(subscribe, options) : clientLine(options);
}

function subscriberLine(subscribe: Subscribe, { config, channel, onNotification, onLost }: LineOptions): Line {
  const subscriber = subscribe(config, ONE_USE);
  subscriber.events.on("error", onLost);
  subscriber.notifications.on(channel, (payload?: string) => onNotification(payload ?? ""));
  return {
    connect: async () => void (await subscriber.connect()),
    listen: async (name) => void (await subscriber.listenTo(name)),
    unlisten: async (name) => void (await subscriber.unlisten(name)),
    listensTo: (name) => subscriber.getSubscribedChannels().includes(name),
    notify: async (payload) => void (await subscriber.notify(channel, payload)),
    close: () => subscriber.close(),
  };
}

function clientLine({ config, channel, onNotification, onLost }: LineOptions): Line {
  const client = new pg.Client(config);
  const channels = new Set<string>();
  client.on("notification", ({ channel: name, payload }) => {
    if (name === channel) onNotification(payload ?? "");
  });
  client.on("error", onLost);
  client.on("end", () => onLost(new Error("the server has hung up")));
  return {
    connect: async () => void (await client.connect()),
    async listen(name) {
      await client.query(`LISTEN ${pg.escapeIdentifier(name)}`);
      channels.add(name);
    },
    async unlisten(name) {
      await client.query(`UNLISTEN ${pg.escapeIdentifier(name)}`);
      channels.delete(name);
    },
    listensTo: (name) => channels.has(name),
    notify: async (payload) =>
      void (await client.query(`NOTIFY ${pg.escapeIdentifier(channel)}, ${pg.escapeLiteral(payload)}`)),
    close: () => client.end(),
  };
}
