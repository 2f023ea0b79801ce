/** Starts a real PostgreSQL for development and tests: found, initialised, run on loopback, stopped with its process. */

import { rm } from "node:fs/promises";
import { type Binaries, findBinaries, usableBin } from "./embedded-binaries.ts";
import { type Home, initialise, makeHome } from "./embedded-home.ts";
import { launch, running, type ServerOptions, stopServer } from "./embedded-server.ts";
import { type Watch, watch } from "./embedded-watchdog.ts";

export interface PostgresOptions extends ServerOptions {
  /** A folder to keep the server and its data in. Left out: a temporary one, removed at stop. */
  readonly dataDir?: string;
  /** The programs to run. Left out: those that are found. */
  readonly binaries?: Binaries;
}

export interface RunningPostgres {
  readonly url: string;
  readonly pid: number;
  /** Stops the server, unless another process uses it too, and removes a temporary folder. */
  stop(): Promise<void>;
}

/** Starts a server, or joins the one that another process runs in the same `dataDir`. */
export async function startPostgres(options: PostgresOptions = {}): Promise<RunningPostgres> {
  const binaries = options.binaries ?? (await findBinaries());
  const home = await makeHome(options.dataDir);
  const watched = await watch(home.dir, home.kept);
  try {
    const bin = await usableBin(binaries, home.dir, home.user.uid !== undefined);
    await initialise(bin, home, options.durable ?? true);
    const server = (await running(home)) ?? (await launch(bin, home, options));
    const url = `postgres://postgres@127.0.0.1:${server.port}/postgres`;
    return { url, pid: server.pid, stop: once(() => stop(home, watched)) };
  } catch (error) {
    await stop(home, watched);
    throw error;
  }
}

async function stop(home: Home, watched: Watch): Promise<void> {
  if (await watched.leave()) {
    await stopServer(home);
    if (!home.kept) await rm(home.dir, { recursive: true, force: true, maxRetries: 5 });
  }
  watched.dismiss();
}

function once(action: () => Promise<void>): () => Promise<void> {
  let done: Promise<void> | undefined;
  return () => {
    done ??= action();
    return done;
  };
}
