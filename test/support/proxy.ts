/** A TCP proxy on loopback that fails the way networks do: it refuses, resets, swallows everything without a word, or is slow. */
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/** The type byte of a NotificationResponse; one that comes by itself comes first in its packet. */
const NOTIFICATION = "A".charCodeAt(0);

/** The server's word that a transaction is committed; of one that is a single statement, that it has been executed. */
const COMMITTED = Buffer.from("COMMIT\0");
const EXECUTED = Buffer.from("SELECT ");
/** It found nothing, and wrote nothing. */
const IDLE = Buffer.from("SELECT 0\0");
/** What the flusher names statements that are a transaction of their own. */
const LONE = [Buffer.from(":lone\0"), Buffer.from(":swift\0")];

export type ProxyMode = "pass" | "refuse" | "half-open";

interface Pair {
  near: Socket;
  far: Socket | undefined;
  swallowing: boolean;
}

/**
 * Resets a connection. One whose goodbye is on its way is closed instead: Node (20) takes a reset that libuv then refuses for done,
 * never closes the handle, and the process waits for it at its end, at full speed and for ever.
 */
function reset(socket: Socket): void {
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}

export class FaultyProxy {
  /** What happens to new connections. */
  mode: ProxyMode = "pass";
  /** As a transaction-mode pooler: what the server says while no query is under way does not reach the client. */
  pooling = false;
  /** No notification reaches any client, whatever else passes. */
  muted = false;
  /** Asked at the answer to each commit: does it pass, is the connection reset, or does it fall silent? `batch`: it came with its begin. `sent`: the packet. */
  onCommitted: (batch: boolean, sent: Buffer) => "pass" | "reset" | "silence" = () => "pass";
  /** Called with what clients send. */
  onSent: (bytes: Buffer) => void = () => {};
  /** Connections accepted so far, in any mode. */
  accepted = 0;
  /** Milliseconds by which whatever passes is late, either way. */
  latency = 0;
  /** Where new connections go. */
  target: { host: string; port: number };
  #stalledUntil = 0;
  readonly #server: Server;
  readonly #pairs = new Set<Pair>();

  private constructor(target: { host: string; port: number }) {
    this.target = target;
    this.#server = createServer((near) => this.#accept(near));
  }

  static async open(target: { host: string; port: number }): Promise<FaultyProxy> {
    const proxy = new FaultyProxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Resets every connection there is. */
  cut(): void {
    for (const { near, far } of this.#pairs) {
      reset(near);
      if (far) reset(far);
    }
  }

  /** From here on the connections there are stay open and carry nothing, either way. */
  freeze(): void {
    for (const pair of this.#pairs) pair.swallowing = true;
  }

  /** Nothing passes for so long; then all of it, in order. */
  stall(ms: number): void {
    this.#stalledUntil = performance.now() + ms;
  }

  /** Ends what `freeze` and lost answers have left behind, as the server's keepalive would. */
  bury(): void {
    for (const { near, far, swallowing } of this.#pairs) {
      if (!swallowing) continue;
      if (!near.destroyed) reset(near);
      if (far && !far.destroyed) reset(far);
    }
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #accept(near: Socket): void {
    this.accepted++;
    near.on("error", () => undefined);
    if (this.mode === "refuse") {
      reset(near);
      return;
    }
    const pair: Pair = { near, far: undefined, swallowing: this.mode === "half-open" };
    this.#pairs.add(pair);
    if (pair.swallowing) near.resume();
    else this.#join(pair);
    near.on("close", () => this.#forget(pair));
  }

  #join(pair: Pair): void {
    const far = connect(this.target);
    pair.far = far;
    far.on("error", () => undefined);
    far.on("close", () => this.#forget(pair));
    let sent: Buffer = Buffer.alloc(0);
    const delay = (): number => Math.max(this.latency, this.#stalledUntil - performance.now(), 0);
    forward(pair, pair.near, far, delay, (bytes) => {
      sent = bytes;
      this.onSent(bytes);
      return bytes;
    });
    forward(pair, far, pair.near, delay, (bytes) => {
      const lone = LONE.some((name) => sent.includes(name)) && bytes.includes(EXECUTED) && !bytes.includes(IDLE);
      const fate = lone || bytes.includes(COMMITTED) ? this.onCommitted(lone || sent.includes("begin"), sent) : "pass";
      if (fate !== "pass") pair.swallowing = true;
      if (fate === "reset") {
        reset(pair.near);
        reset(far);
      }
      return this.#filter(bytes);
    });
  }

  #filter(bytes: Buffer): Buffer {
    if (this.muted) return withoutNotifications(bytes);
    return this.pooling && bytes[0] === NOTIFICATION ? Buffer.alloc(0) : bytes;
  }

  #forget(pair: Pair): void {
    if (pair.near.closed && (pair.far?.closed ?? true)) this.#pairs.delete(pair);
  }
}

function forward(pair: Pair, from: Socket, to: Socket, delay: () => number, filter: (bytes: Buffer) => Buffer): void {
  // In order: what is late keeps what comes after it waiting.
  const line: { at: number; work: () => void }[] = [];
  const pump = (): void => {
    while (line[0] && line[0].at <= performance.now()) {
      const { work } = line.shift()!;
      if (!pair.swallowing) work();
    }
    if (line[0]) setTimeout(pump, line[0].at - performance.now());
  };
  const pass = (work: () => void): void => {
    line.push({ at: performance.now() + delay(), work });
    if (line.length === 1) pump();
  };
  from.on("data", (bytes) => {
    if (pair.swallowing) return;
    const passed = filter(bytes);
    pass(() => to.write(passed));
  });
  from.on("end", () => pass(() => to.end()));
  from.on("close", () => pass(() => to.destroy()));
}

/** The packet's other messages; it holds whole messages, as short ones do on loopback. */
function withoutNotifications(bytes: Buffer): Buffer {
  const kept: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = at + 1 + bytes.readUInt32BE(at + 1);
    if (bytes[at] !== NOTIFICATION) kept.push(bytes.subarray(at, end));
    at = end;
  }
  return Buffer.concat(kept);
}
