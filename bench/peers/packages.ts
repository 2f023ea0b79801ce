/** The peers' packages: installed into the folder of bench/peers in the clone, loaded from there. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** This file runs from dist/; the folder is that of the clone. */
const FOLDER = fileURLToPath(new URL("../../../bench/peers/", import.meta.url));

const manifest = (path: string): any => {
  try {
    return JSON.parse(readFileSync(`${FOLDER}${path}package.json`, "utf8"));
  } catch {
    return {};
  }
};

/** A module of a peer. */
export async function load(name: string): Promise<any> {
  const loader = await import(`${FOLDER}load.mjs`);
  return loader.load(name);
}

/** What is installed, by name; a version that is missing is undefined. */
function installed(): [name: string, wanted: string, version: string | undefined][] {
  const wanted: Record<string, string> = manifest("").dependencies;
  return Object.entries(wanted).map(([name, at]) => [name, at, manifest(`node_modules/${name}/`).version]);
}

/** Installs what is not there yet, as the lock file has it. */
export function install(print: (text: string) => void): void {
  if (installed().every(([, wanted, version]) => wanted === version)) return;
  print("installing the peers into bench/peers/node_modules …");
  const { status } = spawnSync("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: FOLDER,
    stdio: "inherit",
  });
  if (status !== 0) throw new Error("npm ci in bench/peers failed; what it said is above");
}

/** `@dbos-inc/dbos-sdk 5.3.0, …` */
export const versions = (): string =>
  installed()
    .map(([name, , version]) => `${name} ${version}`)
    .join(", ");
