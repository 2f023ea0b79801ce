/** Where the weight of a value lies, for the message that it is too large. */

import type { PathStep } from "./codec-refuse.ts";

const MAX_STEPS = 20;

/** The way to the largest child in stored JSON, going down as long as one child is more than half of its parent. */
export function biggestPath(stored: unknown): PathStep[] {
  const path: PathStep[] = [];
  let node = stored;
  while (typeof node === "object" && node !== null && path.length < MAX_STEPS) {
    const parts = Object.entries(node).map(([key, child]) => ({ key, child, size: JSON.stringify(child).length }));
    const total = parts.reduce((sum, part) => sum + part.size, 0);
    const [biggest] = parts.sort((a, b) => b.size - a.size);
    if (!biggest || (path.length > 0 && biggest.size * 2 <= total)) break;
    path.push(Array.isArray(node) ? Number(biggest.key) : biggest.key);
    node = biggest.child;
  }
  return path;
}
