/** What the driver meant to do and what it was told, a JSON line each, on disk before the driver goes on. */
import { type FileHandle, open } from "node:fs/promises";

export class History {
  readonly #file: FileHandle;
  #lines: string[] = [];
  #writing: Promise<void> | undefined;
  #calls = 0;

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  static async open(path: string): Promise<History> {
    return new History(await open(path, "a"));
  }

  /** Does something, with its intent before and what came of it behind. */
  async call<T>(what: string, details: object, work: () => Promise<T>): Promise<T> {
    this.#calls += 1;
    const no = this.#calls;
    await this.write({ no, what, ...details });
    try {
      const value = await work();
      await this.write({ no, ok: true });
      return value;
    } catch (error) {
      await this.write({ no, ok: false, code: (error as { code?: string }).code, message: String(error) });
      throw error;
    }
  }

  /** Resolves when it is on disk; those that wait go together. */
  async write(entry: object): Promise<void> {
    this.#lines.push(`${JSON.stringify({ at: Date.now(), ...entry })}\n`);
    while (this.#writing) await this.#writing;
    if (this.#lines.length === 0) return;
    const text = this.#lines.join("");
    this.#lines = [];
    this.#writing = this.#flush(text).finally(() => {
      this.#writing = undefined;
    });
    await this.#writing;
  }

  async #flush(text: string): Promise<void> {
    await this.#file.write(text);
    await this.#file.datasync();
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}
