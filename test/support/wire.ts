/**
 * A proxy that reads what goes by: it knows each statement that a client sends, and at a chosen one it lets the client die, cuts the
 * connection, or has the server end it.
 */
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/** What happens at a statement. `before`: it never arrives. `after`: it has run, and its answer never arrives. */
export type Failure = "killed before" | "killed after" | "cut after" | "terminated before";
export const FAILURES: readonly Failure[] = ["killed before", "killed after", "cut after", "terminated before"];

/** The how-manieth statement of a name since the proxy was armed. */
export interface Point {
  readonly name: string;
  readonly nth: number;
}

export interface Faults {
  /** Ends the client's process, and resolves when it is gone. */
  kill(): Promise<unknown>;
  /** Has the server end a session, and resolves when it is gone. */
  terminate(pid: number): Promise<unknown>;
}

interface Armed {
  readonly point: Point | null;
  readonly failure: Failure;
  readonly faults: Faults;
}

/** The code of a Postgres startup packet: version 3. */
const STARTUP = 196608;
const [PARSE, BIND, EXECUTE, QUERY, SYNC] = [..."PBEQS"].map((type) => type.charCodeAt(0));
const [READY, KEY] = [..."ZK"].map((type) => type.charCodeAt(0));

export class StatementProxy {
  /** What has been sent since it was armed, in order. */
  readonly seen: Point[] = [];
  /** Whether the failure took place. */
  hit = false;
  /** Resolves when what belongs to the failure is done. */
  over: Promise<unknown> = Promise.resolve();
  readonly #target: { host: string; port: number };
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #armed: Armed | null = null;
  readonly #counts = new Map<string, number>();

  private constructor(target: { host: string; port: number }) {
    this.#target = target;
    this.#server = createServer({ noDelay: true }, (near) => this.#join(near));
  }

  static async open(target: { host: string; port: number }): Promise<StatementProxy> {
    const proxy = new StatementProxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Counts from here on. `point`: where it fails; null: nowhere. */
  arm(point: Point | null, failure: Failure, faults: Faults): void {
    this.seen.length = 0;
    this.#counts.clear();
    this.hit = false;
    this.#armed = { point, failure, faults };
  }

  disarm(): void {
    this.#armed = null;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** What is to happen at a statement that is about to be passed on; null: it passes. */
  reach(text: string, prepared: string): Armed | null {
    if (!this.#armed) return null;
    const name = nameOf(text, prepared);
    const nth = (this.#counts.get(name) ?? 0) + 1;
    this.#counts.set(name, nth);
    this.seen.push({ name, nth });
    const { point } = this.#armed;
    if (this.hit || point?.name !== name || point.nth !== nth) return null;
    this.hit = true;
    return this.#armed;
  }

  #join(near: Socket): void {
    const far = connect({ ...this.#target, noDelay: true });
    for (const socket of [near, far]) {
      this.#sockets.add(socket);
      socket.on("error", () => {}).on("close", () => this.#sockets.delete(socket));
    }
    new Connection(this, near, far).open();
  }
}

/** A name that is the same in each run: of a function of ours, or the text. */
function nameOf(text: string, prepared: string): string {
  const named = /^\w+:(.+)$/.exec(prepared)?.[1];
  if (named) return named;
  const fn = /^\s*select\s.*?"\w+"\.(\w+)\(/is.exec(text)?.[1];
  const plain = text
    .replaceAll(/"\w+"\./g, "")
    .replaceAll(/\s+/g, " ")
    .trim();
  return fn ?? (plain.length > 48 ? `${plain.slice(0, 47)}…` : plain);
}

function send(to: Socket, messages: readonly Buffer[], sent: () => void = () => {}): void {
  if (messages.length > 0) to.write(Buffer.concat(messages), sent);
  else sent();
}

class Connection {
  readonly #proxy: StatementProxy;
  readonly #near: Socket;
  readonly #far: Socket;
  #started = false;
  /** Nothing passes any more. */
  #shut = false;
  #pid = 0;
  #fromNear: Buffer = Buffer.alloc(0);
  #fromFar: Buffer = Buffer.alloc(0);
  readonly #texts = new Map<string, string>();
  #bound = "";
  /** Answers that end at a ReadyForQuery: how many are owed, and how many have come. The start of a session owes one. */
  #owed = 1;
  #came = 0;
  /** The statement whose answer is not to pass: it is the answer of this number. */
  #last: { readonly answer: number; readonly armed: Armed } | null = null;

  constructor(proxy: StatementProxy, near: Socket, far: Socket) {
    this.#proxy = proxy;
    this.#near = near;
    this.#far = far;
  }

  open(): void {
    this.#near.on("data", (bytes) => this.#ask(bytes));
    this.#far.on("data", (bytes) => this.#answer(bytes));
    this.#near.on("end", () => this.#far.end()).on("close", () => this.#far.destroy());
    this.#far.on("end", () => this.#near.end()).on("close", () => this.#near.destroy());
  }

  #ask(bytes: Buffer): void {
    this.#fromNear = Buffer.concat([this.#fromNear, bytes]);
    const passed: Buffer[] = [];
    for (let message = this.#next(); message && !this.#shut; message = this.#next()) {
      if (this.#last) {
        // Up to the Sync behind it, so that the server answers.
        if (message[0] === SYNC && this.#owed < this.#last.answer) {
          this.#owed += 1;
          passed.push(message);
        }
        continue;
      }
      const armed = this.#statement(message);
      if (armed && / before$/.test(armed.failure)) {
        this.#shut = true;
        send(this.#far, passed, () => this.#fail(armed));
        return;
      }
      if (armed) this.#last = { answer: this.#owed + 1, armed };
      if (message[0] === QUERY || message[0] === SYNC) this.#owed += 1;
      passed.push(message);
    }
    send(this.#far, passed);
  }

  /** The next whole message of the client, if it is there. */
  #next(): Buffer | null {
    const from = this.#fromNear;
    const head = this.#started ? 1 : 0;
    if (from.length < head + 4) return null;
    const end = head + from.readUInt32BE(head);
    if (from.length < end) return null;
    if (!this.#started) this.#started = from.readUInt32BE(4) === STARTUP;
    this.#fromNear = from.subarray(end);
    return from.subarray(0, end);
  }

  #statement(message: Buffer): Armed | null {
    if (!this.#started) return null;
    const texts = (): string[] => message.subarray(5).toString("latin1").split("\0", 2);
    switch (message[0]) {
      case PARSE: {
        const [name, text] = texts() as [string, string];
        this.#texts.set(name, text);
        return null;
      }
      case BIND:
        this.#bound = texts()[1]!;
        return null;
      case EXECUTE:
        return this.#proxy.reach(this.#texts.get(this.#bound) ?? "", this.#bound);
      case QUERY:
        return this.#proxy.reach(texts()[0]!, "");
      default:
        return null;
    }
  }

  #answer(bytes: Buffer): void {
    if (this.#shut) return;
    this.#fromFar = Buffer.concat([this.#fromFar, bytes]);
    const passed: Buffer[] = [];
    while (this.#fromFar.length >= 5 && this.#fromFar.length >= 1 + this.#fromFar.readUInt32BE(1)) {
      const end = 1 + this.#fromFar.readUInt32BE(1);
      const message = this.#fromFar.subarray(0, end);
      this.#fromFar = this.#fromFar.subarray(end);
      if (message[0] === KEY) this.#pid = message.readUInt32BE(5);
      if (message[0] === READY) this.#came += 1;
      if (!this.#last || this.#came < this.#last.answer - 1 || (this.#came < this.#last.answer && message[0] === READY))
        passed.push(message);
      else if (this.#came >= this.#last.answer) {
        this.#shut = true;
        const { armed } = this.#last;
        send(this.#near, passed, () => this.#fail(armed));
        return;
      }
    }
    send(this.#near, passed);
  }

  #fail({ failure, faults }: Armed): void {
    const work = async (): Promise<void> => {
      if (failure.startsWith("killed")) await faults.kill();
      if (failure.startsWith("terminated")) {
        // The server's last words pass.
        this.#far.removeAllListeners("data");
        this.#far.on("data", (bytes) => this.#near.write(bytes));
        await faults.terminate(this.#pid);
        return;
      }
      if (failure.startsWith("cut") && !this.#near.writableEnded) this.#near.resetAndDestroy();
      this.#far.destroy();
    };
    this.#proxy.over = work();
    this.#proxy.over.catch(() => {});
  }
}
