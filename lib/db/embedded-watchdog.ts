/** Stops a development server when the process that uses it is gone, however that process ended. */

import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

// Reads until its pipe from the parent ends. A word on the pipe means that the parent stopped the server in good order.
const WATCH = `
trap '' INT TERM HUP
read -r word && exit 0
rm -f "$HOME_DIR/users/$ME"
for user in "$HOME_DIR"/users/*; do
  kill -0 "$(basename "$user" | cut -d- -f1)" 2>/dev/null && exit 0
done
file="$HOME_DIR/data/postmaster.pid"
[ -e "$file" ] && kill -INT "$(head -n 1 "$file")"
tries=0
while [ -e "$file" ] && [ "$tries" -lt 100 ]; do sleep 0.05; tries=$((tries + 1)); done
[ -e "$file" ] && kill -QUIT "$(head -n 1 "$file")"
[ "$KEEP" = 1 ] || rm -rf "$HOME_DIR"
`;

/** One process's claim that the server in a folder is needed. */
export interface Watch {
  /** Gives the claim up; true when nobody else has one, so that the server is to be stopped. */
  leave(): Promise<boolean>;
  /** Ends the watchdog, once all is in order: until then it finishes what this process began. */
  dismiss(): void;
}

let count = 0;

/** Registers this process as a user of the server in `home`, and leaves a watchdog behind. */
export async function watch(home: string, keep: boolean): Promise<Watch> {
  const users = join(home, "users");
  const me = `${process.pid}-${++count}`;
  await mkdir(users, { recursive: true });
  await writeFile(join(users, me), "");
  const dog = process.platform === "win32" ? undefined : startDog({ HOME_DIR: home, ME: me, KEEP: keep ? "1" : "0" });
  return {
    async leave() {
      await rm(join(users, me), { force: true });
      return !(await readdir(users).catch(() => [])).some(isAlive);
    },
    dismiss() {
      dog?.stdin?.end("stop\n");
    },
  };
}

function startDog(variables: Record<string, string>): ChildProcess {
  // detached: its own process group, so that Ctrl-C in the terminal does not reach it.
  const dog = spawn("/bin/sh", ["-c", WATCH], {
    cwd: "/",
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
    env: { PATH: process.env.PATH, ...variables },
  });
  dog.on("error", () => {});
  dog.stdin?.on("error", () => {});
  dog.unref();
  (dog.stdin as unknown as { unref?(): void })?.unref?.();
  return dog;
}

function isAlive(user: string): boolean {
  try {
    process.kill(Number.parseInt(user, 10), 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
