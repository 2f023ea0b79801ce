/** Where the package is tried as its users have it: its tarball, empty folders outside the repository, and the tools of others. */
import { execFile } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Test } from "tap";
import { freshDatabase } from "../support/postgres.ts";
import { ROOT } from "../support/readme.ts";

export interface Outcome {
  readonly stdout: string;
  readonly stderr: string;
}

/** What a program of a user sees of the machine: nothing of the test runner's settings. */
const { PATH, HOME, TMPDIR } = process.env;

/** Runs a program to its end. Throws what it wrote when it fails. */
export function run(
  program: string,
  args: readonly string[],
  cwd: string,
  env: Record<string, string> = {},
): Promise<Outcome> {
  const options = { cwd, env: { PATH, HOME, TMPDIR, ...env }, timeout: 180_000, maxBuffer: 1 << 26 };
  return new Promise((done, fail) => {
    // A test runner puts a preload into every Node process that it sees being started.
    execFile("env", ["-u", "NODE_OPTIONS", program, ...args], options, (error, stdout, stderr) => {
      if (!error) return done({ stdout, stderr });
      const what = [program, ...args].join(" ");
      fail(new Error(`${what}\nexit code ${error.code ?? error.signal}\n${stdout}\n${stderr}`));
    });
  });
}

/** Packages that a cache of this machine keeps between runs: other versions of Node and TypeScript, other runtimes, other installers. */
const TOOLS: Record<string, string> = {
  "node20-oldest": "npm:node@20.19.0",
  node22: "npm:node@22",
  node24: "npm:node@24",
  ...Object.fromEntries(
    ["5.4", "5.5", "5.6", "5.7", "5.8", "5.9", "6.0", "7.0"].map((v) => [`ts${v}`, `npm:typescript@${v}`]),
  ),
  bun: "1",
  deno: "2",
  pnpm: "latest",
  "@yarnpkg/cli-dist": "4",
};

export class Stage {
  readonly #root = mkdtempSync(join(tmpdir(), "perdure-consumer-"));
  #tarball: Promise<string> | undefined;
  #count = 0;
  readonly #t: Pick<Test, "teardown">;

  constructor(t: Pick<Test, "teardown">) {
    this.#t = t;
    t.teardown(() => rmSync(this.#root, { recursive: true, force: true, maxRetries: 5 }));
  }

  /** The file that `npm pack` makes of what was built. */
  tarball(): Promise<string> {
    this.#tarball ??= run("npm", ["pack", "--ignore-scripts", "--pack-destination", this.#root], ROOT).then(() =>
      join(this.#root, readdirSync(this.#root).find((name) => name.endsWith(".tgz"))!),
    );
    return this.#tarball;
  }

  /** An empty folder with these files. */
  folder(files: Record<string, string> = {}): string {
    const folder = join(this.#root, `app${++this.#count}`);
    mkdirSync(folder);
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, name)), { recursive: true });
      writeFileSync(join(folder, name), text);
    }
    return folder;
  }

  /** A folder with the package unpacked, its dependencies, and `packages` of this repository, all without a download. */
  async linked(files: Record<string, string>, packages: readonly string[] = []): Promise<string> {
    const folder = this.folder(files);
    const modules = join(folder, "node_modules");
    mkdirSync(modules);
    await run("tar", ["xzf", await this.tarball(), "-C", modules], folder);
    renameSync(join(modules, "package"), join(modules, "perdure"));
    const manifest = JSON.parse(readFileSync(join(modules, "perdure", "package.json"), "utf8"));
    for (const name of [...Object.keys(manifest.dependencies), ...packages]) {
      mkdirSync(dirname(join(modules, name)), { recursive: true });
      symlinkSync(join(ROOT, "node_modules", name), join(modules, name));
    }
    return folder;
  }

  /** A folder into which npm has installed the package and others. */
  async installed(files: Record<string, string>, packages: readonly string[] = []): Promise<string> {
    const folder = this.folder(files);
    await run("npm", ["install", "--no-audit", "--no-fund", await this.tarball(), ...packages], folder);
    return folder;
  }

  /** A copy of a folder, for another case. */
  copy(folder: string, files: Record<string, string> = {}): string {
    const copy = this.folder();
    cpSync(folder, copy, { recursive: true, verbatimSymlinks: true });
    for (const [name, text] of Object.entries(files)) writeFileSync(join(copy, name), text);
    return copy;
  }

  /** The URL of an empty database. */
  database(): Promise<string> {
    return freshDatabase(this.#t);
  }
}

/** The program of a tool, `node_modules/…` below the cache. Downloads all tools the first time. */
export async function tool(path: string): Promise<string> {
  installing ??= installTools();
  return join(await installing, "node_modules", path);
}

let installing: Promise<string> | undefined;

async function installTools(): Promise<string> {
  const folder = join(tmpdir(), "perdure-consumer-tools");
  const manifest = JSON.stringify({ private: true, dependencies: TOOLS });
  const stamp = join(folder, "complete.json");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === manifest) return folder;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "package.json"), manifest);
  await run("npm", ["install", "--no-audit", "--no-fund"], folder);
  writeFileSync(stamp, manifest);
  return folder;
}
