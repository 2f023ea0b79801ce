/** Rounds in which contenders take turns, and what is said of their figures: medians, spreads, percentiles. Pure but for the clock. */

/** One side of a comparison: does its work for about so many milliseconds, and says how much it was. */
export interface Contender {
  readonly name: string;
  readonly run: (ms: number) => Promise<number>;
}

export interface Figure {
  readonly name: string;
  /** Per second, one per round. */
  readonly rates: readonly number[];
  /** Microseconds of this process's CPU per unit, one per round. */
  readonly cpu: readonly number[];
}

/** Each contender once per round, each round beginning with another; a round before them warms up and does not count. */
export async function compare(contenders: readonly Contender[], rounds: number, ms: number): Promise<Figure[]> {
  const figures = contenders.map(({ name }) => ({ name, rates: [] as number[], cpu: [] as number[] }));
  for (let round = -1; round < rounds; round += 1) {
    for (let turn = 0; turn < contenders.length; turn += 1) {
      const at = (turn + round + contenders.length) % contenders.length;
      const { rate, cpu } = await timed(contenders[at]!, round < 0 ? ms / 3 : ms);
      if (round < 0) continue;
      figures[at]!.rates.push(rate);
      figures[at]!.cpu.push(cpu);
    }
  }
  return figures;
}

async function timed({ run }: Contender, ms: number): Promise<{ rate: number; cpu: number }> {
  const [start, used] = [performance.now(), process.cpuUsage()];
  const count = await run(ms);
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(used);
  return { rate: count / seconds, cpu: (user + system) / count };
}

/** Keeps `width` calls of `work` under way until the time is up, then lets them end. Returns how many there were. */
export async function keepBusy(width: number, ms: number, work: () => Promise<unknown>): Promise<number> {
  const end = performance.now() + ms;
  let count = 0;
  const loop = async (): Promise<void> => {
    while (performance.now() < end) {
      await work();
      count += 1;
    }
  };
  await Promise.all(Array.from({ length: width }, loop));
  return count;
}

/** The value below which a share of the values lie. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

export const median = (values: readonly number[]): number => percentile(values, 0.5);

/** `12,345 (11,900–12,800)`: the median and the spread. */
export function spread(values: readonly number[]): string {
  return `${number(median(values))} (${number(Math.min(...values))}–${number(Math.max(...values))})`;
}

/** `0.61 / 1.20 / 3.05`: p50, p95 and p99, and how many. */
export function percentiles(values: readonly number[]): string {
  const at = (share: number): string => number(percentile(values, share));
  return `${at(0.5)} / ${at(0.95)} / ${at(0.99)} (n=${values.length})`;
}

/** Three digits that count. */
export function number(value: number): string {
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** Lines of cells, in columns. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const pad = (cell: string, column: number): string =>
    column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!);
  return rows.map((row) => `  ${row.map(pad).join("  ")}`.trimEnd()).join("\n");
}
