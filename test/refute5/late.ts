/** A TCP proxy whose way to the server is slow: what clients have sent arrives, though they have long been told that the connection is lost. */
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

interface Pair {
  readonly near: Socket;
  readonly far: Socket;
  kept: Buffer[];
}

export class LateProxy {
  /** Asked of what a client sends: true keeps it, and resets the client. */
  keeps: (text: string) => boolean = () => false;
  readonly #server: Server;
  readonly #pairs = new Set<Pair>();
  readonly #late = new Set<Pair>();

  private constructor(target: { host: string; port: number }) {
    this.#server = createServer((near) => this.#accept(near, connect(target)));
  }

  static async open(url: URL): Promise<LateProxy> {
    const proxy = new LateProxy({ host: url.hostname, port: Number(url.port) });
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  /** The same database by way of this proxy. */
  via(url: URL): string {
    return Object.assign(new URL(url), { host: `127.0.0.1:${(this.#server.address() as AddressInfo).port}` }).href;
  }

  /** Whether something is kept. */
  get late(): number {
    return this.#late.size;
  }

  /** What was kept arrives. Resolves when the server has worked it off and hung up. */
  async deliver(): Promise<void> {
    await Promise.all(
      [...this.#late].map(async ({ far, kept }) => {
        const over = new Promise((resolve) => far.on("close", resolve));
        far.end(Buffer.concat(kept));
        far.resume();
        await over;
      }),
    );
    this.#late.clear();
  }

  async close(): Promise<void> {
    for (const { near, far } of [...this.#pairs, ...this.#late]) {
      near.destroy();
      far.destroy();
    }
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #accept(near: Socket, far: Socket): void {
    const pair: Pair = { near, far, kept: [] };
    this.#pairs.add(pair);
    near.on("error", () => {});
    far.on("error", () => {});
    near.on("data", (bytes) => {
      if (this.#late.has(pair)) pair.kept.push(bytes);
      else if (this.keeps(bytes.toString("latin1"))) {
        this.#pairs.delete(pair);
        this.#late.add(pair);
        pair.kept = [bytes];
        // A big batch comes in pieces.
        setTimeout(() => near.resetAndDestroy(), 50);
      } else far.write(bytes);
    });
    far.on("data", (bytes) => void near.write(bytes));
    near.on("close", () => this.#late.has(pair) || far.destroy());
    far.on("close", () => near.destroy());
  }
}
