/** Figures of contenders in rounds, and how they compare with Perdure's: medians and spreads of the rounds' own ratios. Pure. */
import { median, number } from "../support/figures.ts";

/** One figure per round, by contender, in the order of the tables. */
export class Rounds<T> {
  readonly #of = new Map<string, T[]>();

  add(title: string, figure: T): void {
    const figures = this.#of.get(title);
    if (figures) figures.push(figure);
    else this.#of.set(title, [figure]);
  }

  get titles(): string[] {
    return [...this.#of.keys()];
  }

  of(title: string): readonly T[] {
    return this.#of.get(title) ?? [];
  }

  values(title: string, pick: (figure: T) => number | null): number[] {
    return this.of(title)
      .map(pick)
      .filter((value) => value !== null);
  }

  /** `12.3 × (11.0–13.9)`: how many times this contender's figure Perdure's is, round by round. */
  ahead(title: string, pick: (figure: T) => number | null): string {
    return this.#compared(title, pick, (perdures, other) => perdures / other);
  }

  /** How many times Perdure's figure that of this contender is. */
  times(title: string, pick: (figure: T) => number | null): string {
    return this.#compared(title, pick, (perdures, other) => other / perdures);
  }

  #compared(title: string, pick: (figure: T) => number | null, ratio: (perdures: number, other: number) => number) {
    const base = this.of("perdure").map(pick);
    const ratios = this.of(title)
      .map(pick)
      .flatMap((value, round) => (value && base[round] ? [ratio(base[round], value)] : []));
    return title === "perdure" || ratios.length === 0 ? "" : within(ratios);
  }
}

/** The median of ratios and their spread. */
export function within(ratios: readonly number[]): string {
  const [low, high] = [Math.min(...ratios), Math.max(...ratios)].map(number);
  return `${number(median(ratios))} × (${low}–${high})`;
}

/** The median, or a dash where nothing is known. */
export const middle = (values: readonly number[]): string => (values.length === 0 ? "–" : number(median(values)));
