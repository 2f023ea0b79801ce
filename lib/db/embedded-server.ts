/** One server process: started on a free port, found again by the file that it keeps about itself, stopped. */

import { type ChildProcess, spawn } from "node:child_process";
import { open, readFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { PerdureError } from "../core/errors.ts";
import { environment, type Home } from "./embedded-home.ts";

export interface ServerOptions {
  /** Left out: a free one. */
  readonly port?: number;
  /** Server settings, such as `{ max_connections: "300" }`. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Default true. With false, commits are not flushed to disk: faster, for tests. */
  readonly durable?: boolean;
}

export interface Postmaster {
  readonly pid: number;
  readonly port: number;
  readonly ready: boolean;
}

const START_TIMEOUT_MS = 30_000;
const FAST_BUT_FORGETFUL = { fsync: "off", synchronous_commit: "off", full_page_writes: "off" };

export async function launch(bin: string, home: Home, options: ServerOptions): Promise<Postmaster> {
  for (let tries = 1; ; tries++) {
    const port = options.port ?? (await freePort());
    const server = await spawnServer(bin, home, serverArguments(home, port, options));
    const state = await untilReady(home, server);
    if (typeof state !== "string") return state;
    if (/postmaster\.pid" already exists/.test(state)) {
      const other = await running(home, START_TIMEOUT_MS);
      if (other) return other;
    }
    if (/already in use/.test(state) && options.port === undefined && tries < 10) continue;
    throw new PerdureError("PERDURE_CONNECTION", `the PostgreSQL server in ${home.dir} did not start: ${state}`);
  }
}

function serverArguments(home: Home, port: number, options: ServerOptions): string[] {
  const settings: Record<string, string> = {
    listen_addresses: "127.0.0.1",
    port: String(port),
    unix_socket_directories: "",
    ...(options.durable === false ? FAST_BUT_FORGETFUL : {}),
    ...options.settings,
  };
  const flags = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  return ["-D", join(home.dir, "data"), ...flags];
}

async function spawnServer(bin: string, home: Home, args: string[]): Promise<ChildProcess> {
  const log = await open(join(home.dir, "log"), "w");
  try {
    const server = spawn(join(bin, "postgres"), args, {
      ...home.user,
      cwd: "/",
      detached: true,
      env: environment(),
      stdio: ["ignore", log.fd, log.fd],
    });
    server.unref();
    return server;
  } finally {
    await log.close();
  }
}

/** The server when it takes connections; the end of its log when it gave up. */
async function untilReady(home: Home, server: ChildProcess): Promise<Postmaster | string> {
  let failed: string | undefined;
  server.on("error", (error) => {
    failed = error.message;
  });
  server.on("exit", (code) => {
    failed ??= `exit code ${code}`;
  });
  for (const end = Date.now() + START_TIMEOUT_MS; Date.now() < end; await pause(10)) {
    if (failed !== undefined) return `${failed}\n${await logTail(home)}`;
    const state = await postmaster(home);
    if (state?.ready && state.pid === server.pid) return state;
  }
  server.kill("SIGQUIT");
  return `not ready after ${START_TIMEOUT_MS / 1000} s\n${await logTail(home)}`;
}

const logTail = async (home: Home): Promise<string> =>
  (await readFile(join(home.dir, "log"), "utf8")).slice(-2000).trim();

/** The server that runs in this folder already. */
export async function running(home: Home, patience = 0): Promise<Postmaster | undefined> {
  for (const end = Date.now() + patience; ; await pause(50)) {
    const state = await postmaster(home);
    if (state?.ready && lives(state.pid) && (await answers(state.port))) return state;
    if (!state || Date.now() >= end) return undefined;
  }
}

/** What the server itself wrote about its state: pid, folder, start time, port, sockets, address, memory, status. */
async function postmaster(home: Home): Promise<Postmaster | undefined> {
  const text = await readFile(join(home.dir, "data", "postmaster.pid"), "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  const lines = text.split("\n");
  return { pid: Number(lines[0]), port: Number(lines[3]), ready: lines[7]?.trim() === "ready" };
}

/** It removes its file a little before it ends. Bounded: one that nobody waits for keeps its pid for ever. */
async function untilGone(pid: number): Promise<void> {
  for (const end = Date.now() + 1000; lives(pid) && Date.now() < end; ) await pause(2);
}

function lives(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

const answers = (port: number): Promise<boolean> =>
  new Promise((done) => {
    const socket = connect(port, "127.0.0.1");
    const end = (answer: boolean) => () => {
      socket.destroy();
      done(answer);
    };
    socket.once("connect", end(true)).once("error", end(false)).setTimeout(2000, end(false));
  });

const freePort = (): Promise<number> =>
  new Promise((done, fail) => {
    const probe = createServer().once("error", fail);
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address() as { port: number };
      probe.close(() => done(port));
    });
  });

/** Ends open sessions and stops in good order; at once when that takes too long. */
export async function stopServer(home: Home): Promise<void> {
  // Only what answers is ours: a file left by a crash may name a process of somebody else.
  const state = await running(home);
  if (!state) return;
  for (const signal of ["SIGINT", "SIGQUIT"] as const) {
    try {
      process.kill(state.pid, signal);
    } catch {
      return;
    }
    for (const end = Date.now() + 10_000; Date.now() < end; await pause(5)) {
      if ((await postmaster(home))?.pid !== state.pid) return untilGone(state.pid);
    }
  }
}
