/** The folder of a development server: where it is, who owns it, and the empty database cluster in it. */

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { chmod, chown, lstat, mkdir, mkdtemp, readFile, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { PerdureError } from "../core/errors.ts";
import { reachableByOthers } from "./embedded-binaries.ts";

/** A folder that holds one server: `data`, `log`, `users`, and `native-<version>` where the programs had to be copied. */
export interface Home {
  readonly dir: string;
  readonly kept: boolean;
  /** PostgreSQL refuses to run as root: the user to run as instead. */
  readonly user: { readonly uid?: number; readonly gid?: number };
}

const NOBODY = 65534;

export async function makeHome(dataDir: string | undefined): Promise<Home> {
  const user = process.getuid?.() === 0 ? { uid: NOBODY, gid: NOBODY } : {};
  let dir = dataDir === undefined ? await mkdtemp(join(tmpdir(), "perdure-pg-")) : resolve(dataDir);
  if (dataDir !== undefined && user.uid !== undefined && !(await reachableByOthers(dir))) {
    // Below a private folder such as /root the server's user cannot work, so the data lives where it can.
    dir = join("/var/tmp", `perdure-${createHash("sha256").update(dir).digest("hex").slice(0, 16)}`);
  }
  await mkdir(dir, { recursive: true });
  if (user.uid !== undefined) {
    await refuseForeign(dir, user.uid);
    await chown(dir, user.uid, user.gid);
    await chmod(dir, 0o755);
  }
  return { dir, kept: dataDir !== undefined, user };
}

/** A folder that somebody else put in our place, or a link to one, is not given away. */
async function refuseForeign(dir: string, uid: number): Promise<void> {
  const found = await lstat(dir);
  if (found.isDirectory() && (found.uid === uid || found.uid === process.getuid?.())) return;
  throw new PerdureError("PERDURE_OPTION", `${dir} belongs to somebody else: remove it, or choose another folder`);
}

/** Makes the cluster, once in the life of a folder. */
export async function initialise(bin: string, home: Home, durable: boolean): Promise<void> {
  const data = join(home.dir, "data");
  if (existsSync(join(data, "PG_VERSION"))) return refuseOtherVersion(bin, home);
  // Renamed when complete: neither a run cut short nor two processes at once leave half a cluster.
  const draft = join(home.dir, `data.${process.pid}`);
  await rm(draft, { recursive: true, force: true });
  const how = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"];
  if (!durable) how.push("--no-sync");
  try {
    await promisify(execFile)(join(bin, "initdb"), [...how, "-D", draft], {
      ...home.user,
      cwd: "/",
      env: environment(),
    });
    await rename(draft, data);
  } catch (error) {
    await rm(draft, { recursive: true, force: true });
    if (existsSync(join(data, "PG_VERSION"))) return;
    const why = (error as { stderr?: string }).stderr?.trim() || (error as Error).message;
    throw new PerdureError("PERDURE_CONNECTION", `initdb could not make a database in ${home.dir}: ${why}`);
  }
}

async function refuseOtherVersion(bin: string, home: Home): Promise<void> {
  const have = (await readFile(join(home.dir, "data", "PG_VERSION"), "utf8")).trim();
  const { stdout } = await promisify(execFile)(join(bin, "postgres"), ["--version"], { env: environment() });
  const runs = / (\d+)/.exec(stdout)?.[1];
  if (have === runs) return;
  throw new PerdureError(
    "PERDURE_CONNECTION",
    `${home.dir} holds data of PostgreSQL ${have}, but the installed server is ${runs}: remove the folder, or install the other version`,
  );
}

/** The host's PG* variables and language must not leak into the server. */
export function environment(): NodeJS.ProcessEnv {
  const { PATH, TMPDIR, SystemRoot } = process.env;
  return {
    LC_ALL: "C",
    TZ: "UTC",
    ...(PATH && { PATH }),
    ...(TMPDIR && { TMPDIR }),
    ...(SystemRoot && { SystemRoot }),
  };
}
