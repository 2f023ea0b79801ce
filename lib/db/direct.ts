/** One direct connection whose socket can be cut: a half-open socket answers neither a query nor a goodbye. */
import { Socket } from "node:net";
import { pause } from "./deadline.ts";

/** How long a connection may take to say goodbye before its socket is destroyed. */
const GOODBYE_MS = 500;
/** The most patience for one connect, however long the outage. */
const MOST_CONNECT_MS = 10_000;

export interface Direct {
  /** For `new pg.Client`, once. */
  readonly config: object;
  /** Destroys the socket. */
  cut(): void;
}

/** `options`: settings of its session, beside those of the config; those of a URL win. */
export function direct(config: object, name: string, options = ""): Direct {
  const given = config as { password?: unknown; options?: string; stream?: () => Socket };
  let socket: Socket | undefined;
  const stream = () => {
    socket = given.stream?.() ?? new Socket();
    return socket;
  };
  return {
    config: {
      ...config,
      // pg hides the password of pool.options from the spread.
      password: given.password,
      ...(options && { options: `${given.options ?? ""} ${options}`.trim() }),
      stream,
      pipeline: false,
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
      fallback_application_name: name,
    },
    cut: () => socket?.destroy(),
  };
}

/** Patience for one connect: the query deadline at first, more as an outage lasts, so that a slow server is reached in the end. */
export function connectDeadline(deadlineMs: number, outageMs: number): number {
  return Math.max(deadlineMs, Math.min(outageMs / 2, MOST_CONNECT_MS));
}

/** Says goodbye and waits a moment for the server to hang up; then there is no socket, whatever the server did. */
export async function hangUp(
  end: () => Promise<void>,
  connection: Pick<Direct, "cut">,
  goodbyeMs = GOODBYE_MS,
): Promise<void> {
  const stop = new AbortController();
  const ended = end()
    .catch(() => undefined)
    .finally(() => stop.abort());
  await pause(goodbyeMs, stop.signal);
  connection.cut();
  await ended;
}
