/**
 * Connections that outlive their clients, where engine after engine is launched in one process: a client that connects is given a session
 * that another has left, as new. A new session costs the server as much as a hundred statements, as it knows no plan and no catalogue.
 */
import { Duplex } from "node:stream";
import pg from "pg";

/** What `discard all` does, but for the plans. Nothing of the last client is left: no transaction, lock, channel, setting or statement. */
const AS_NEW = `set client_min_messages = error; rollback; set session authorization default; reset all; deallocate all; close all; unlisten *;
  select pg_advisory_unlock_all(); discard temp; discard sequences`;

const [QUERY, SYNC, TERMINATE, READY, FAILED] = ["Q", "S", "X", "Z", "E"].map((type) => type.charCodeAt(0));
const STATEMENT_ENDS = [QUERY, SYNC];

/** A message of the protocol: its type, its length, its body. */
function message(type: string, ...body: readonly Buffer[]): Buffer {
  const head = Buffer.alloc(5, type, "latin1");
  head.writeInt32BE(
    body.reduce((sum, { length }) => sum + length, 4),
    1,
  );
  return Buffer.concat([head, ...body]);
}
const text = (...words: readonly string[]): Buffer => Buffer.from(words.map((word) => `${word}\0`).join(""));
const int = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
};

/** Finds where messages begin in what comes in pieces. */
class Messages {
  #head = Buffer.alloc(0);
  #rest = 0;

  feed(piece: Buffer, onType: (type: number) => void): void {
    for (let at = 0; at < piece.length; ) {
      const skipped = Math.min(this.#rest, piece.length - at);
      this.#rest -= skipped;
      at += skipped;
      const head = piece.subarray(at, at + 5 - this.#head.length);
      at += head.length;
      this.#head = Buffer.concat([this.#head, head]);
      if (this.#head.length < 5) continue;
      onType(this.#head[0]!);
      this.#rest = this.#head.readInt32BE(1) - 4;
      this.#head = Buffer.alloc(0);
    }
  }
}

/** A session of the server, behind one client after the other. */
class Session {
  /** What the server says when a client has logged in. */
  readonly welcome: Buffer;
  readonly #stream: Duplex;
  readonly #out = new Messages();
  readonly #in = new Messages();
  #unanswered = 0;
  #failed = false;
  #client: Duplex | null = null;
  #onReady: () => void = () => {};
  over = false;

  static async open(config: pg.ClientConfig): Promise<Session> {
    const client = new pg.Client(config);
    const welcome: Buffer[] = [message("R", int(0))];
    client.connection.on("parameterStatus", (status: { parameterName: string; parameterValue: string }) => {
      welcome.push(message("S", text(status.parameterName, status.parameterValue)));
    });
    client.connection.on("backendKeyData", ({ processID, secretKey }: { processID: number; secretKey: number }) => {
      welcome.push(message("K", int(processID), int(secretKey)));
    });
    client.on("error", () => {});
    await client.connect();
    return new Session(client.connection.stream, Buffer.concat([...welcome, message("Z", Buffer.from("I"))]));
  }

  constructor(stream: Duplex, welcome: Buffer) {
    this.#stream = stream;
    this.welcome = welcome;
    stream.removeAllListeners("data");
    stream.on("data", (piece: Buffer) => this.#hear(piece));
    stream.on("error", (error) => this.#end(error));
    stream.on("close", () => this.#end());
  }

  lendTo(client: Duplex): void {
    this.#client = client;
    client.push(this.welcome);
  }

  write(piece: Buffer): void {
    this.#out.feed(piece, (type) => {
      if (STATEMENT_ENDS.includes(type)) this.#unanswered += 1;
    });
    this.#stream.write(piece);
  }

  /** From a client that is done with it. True: it is as new. In the middle of a statement it ends, as with a client that dies. */
  async takeBack(): Promise<boolean> {
    this.#client = null;
    if (this.#unanswered > 0) this.close();
    if (this.over) return false;
    this.#failed = false;
    const ready = new Promise<void>((resolve) => {
      this.#onReady = resolve;
    });
    this.write(message("Q", text(AS_NEW)));
    await ready;
    if (this.#failed) this.close();
    return !this.over;
  }

  close(): void {
    this.#stream.destroy();
    this.#end();
  }

  #hear(piece: Buffer): void {
    this.#in.feed(piece, (type) => {
      if (type === FAILED) this.#failed = true;
      if (type === READY) this.#unanswered -= 1;
    });
    if (this.#client) this.#client.push(piece);
    else if (this.#unanswered === 0) this.#onReady();
  }

  #end(error?: Error): void {
    if (this.over) return;
    this.over = true;
    this.#onReady();
    const client = this.#client;
    this.#client = null;
    if (error) client?.destroy(error);
    else client?.push(null);
  }
}

/** What a client takes for its socket. */
class Lent extends Duplex {
  readonly #kept: KeptConnections;
  #session: Session | undefined;
  #returned: Promise<void> | undefined;

  constructor(kept: KeptConnections) {
    super({ allowHalfOpen: false });
    this.#kept = kept;
  }

  connect(): this {
    process.nextTick(() => this.emit("connect"));
    return this;
  }

  setNoDelay(): this {
    return this;
  }

  setKeepAlive(): this {
    return this;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  override _read(): void {}

  override _write(piece: Buffer, _: BufferEncoding, done: (error?: Error | null) => void): void {
    if (!this.#session) {
      // The login: the session has its own behind it.
      this.#open().then(() => done(), done);
      return;
    }
    if (piece.length === 5 && piece[0] === TERMINATE) void this.#giveBack().then(() => this.push(null));
    else this.#session.write(piece);
    done();
  }

  async #open(): Promise<void> {
    const session = await this.#kept.take();
    this.#session = session;
    if (this.destroyed) await this.#giveBack();
    else session.lendTo(this);
  }

  #giveBack(): Promise<void> {
    this.#returned ??= this.#session ? this.#kept.giveBack(this.#session) : Promise.resolve();
    return this.#returned;
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    void this.#giveBack().then(() => done(error));
  }
}

export class KeptConnections {
  readonly #config: pg.ClientConfig;
  readonly #idle: Session[] = [];
  #closed = false;

  constructor(config: pg.ClientConfig) {
    this.#config = config;
  }

  /** The option `database` of those who share them. */
  get config(): pg.PoolConfig {
    const { connectionString: _, password: __, ...rest } = this.#config;
    const { host, port, user, database } = new pg.Client(this.#config);
    return {
      ...rest,
      host,
      port,
      user,
      database,
      ssl: false,
      stream: () => new Lent(this),
    } as unknown as pg.PoolConfig;
  }

  async take(): Promise<Session> {
    for (let session = this.#idle.pop(); session; session = this.#idle.pop()) if (!session.over) return session;
    return Session.open(this.#config);
  }

  async giveBack(session: Session): Promise<void> {
    const isNew = await session.takeBack();
    if (isNew && !this.#closed) this.#idle.push(session);
    else session.close();
  }

  close(): void {
    this.#closed = true;
    for (const session of this.#idle.splice(0)) session.close();
  }
}
