/** What stands around the commits of a process, where somebody wants to stop it there. */
import type { WriteKind } from "./writes.ts";

/** A write, as it is about to be committed. */
export interface Written {
  readonly kind: WriteKind;
  readonly row: unknown;
}

/** Lets a commit pass, or throws: before it, or after it, when nobody learns that it took place. */
export type Guard = <T>(writes: readonly Written[], commit: () => Promise<T>) => Promise<T>;
