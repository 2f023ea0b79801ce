/** What the demo prints: lines with a time and a speaker, in colour on a terminal. */

type Colour = keyof typeof CODES;
const CODES = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, blue: 34, magenta: 35, cyan: 36 } as const;
const coloured = process.stdout.isTTY && !process.env.NO_COLOR;
const begun = performance.now();

export const paint = (colour: Colour, text: string): string =>
  coloured ? `\u001b[${CODES[colour]}m${text}\u001b[0m` : text;

export const print = (text = ""): void => console.log(text);

/** A line: when, who, what. */
export function say(who: string, what: string, colour: Colour = "cyan"): void {
  const at = `${((performance.now() - begun) / 1000).toFixed(2)} s`.padStart(8);
  print(`${paint("dim", at)}  ${paint(colour, who.padEnd(10))}${what}`);
}

/** Columns as wide as what they hold. */
export function table(rows: readonly (readonly string[])[]): void {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  for (const [at, row] of rows.entries()) {
    const line = row.map((cell, column) => cell.padEnd(widths[column]!)).join("   ");
    print(`  ${at === 0 ? paint("bold", line) : line}`.trimEnd());
  }
}
