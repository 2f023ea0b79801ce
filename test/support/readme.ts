/**
 * The README as programs. Its first program stands for itself; each chapter's blocks, `ts` and `sql` in their order, are one program,
 * in which a `//=> value` at the end of a line is an assertion. All are compiled, types checked, against the published types.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import * as perdure from "../../lib/index.ts";

export const ROOT: string = fileURLToPath(new URL("../../../", import.meta.url));
const OUT = `${ROOT}dist/readme`;
const LIBRARY = "perdure";
const SUPPORT = "../test/support/readme-chapter.js";
const README = readFileSync(`${ROOT}README.md`, "utf8");

export interface Block {
  readonly language: string;
  readonly text: string;
}
export interface Chapter {
  readonly title: string;
  readonly blocks: readonly Block[];
}

/** The chapters in their order, the first screen first. */
export function chapters(): Chapter[] {
  return README.split(/^#{1,2} /m)
    .slice(1)
    .map((text) => ({ title: text.slice(0, text.indexOf("\n")), blocks: blocksOf(text) }));
}

/** The code on a page or in a part of one. */
export function blocksOf(text: string): Block[] {
  return [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(([, language, body]) => ({
    language: language!,
    text: body!,
  }));
}

/** The rows of the table under a title, as the texts of their cells. */
export function tableUnder(title: string): string[][] {
  const text = README.split(`## ${title}\n`)[1]?.split("\n## ")[0] ?? "";
  return text
    .split("\n")
    .filter((line) => line.startsWith("|"))
    .slice(2)
    .map((line) =>
      line
        .slice(1, -1)
        .split("|")
        .map((cell) => cell.trim()),
    );
}

const fileOf = ({ title }: Chapter): string => title.toLowerCase().replace(/\W+/g, "-");
export const firstProgram = `${OUT}/order.mjs`;
export const programOf = (chapter: Chapter, folder: string = OUT): string => `${folder}/${fileOf(chapter)}.js`;

/** Compiles the first program and a program for each chapter with `ts` or `sql` blocks. Throws what the compiler says. */
export async function compileReadme(): Promise<Chapter[]> {
  const [first, ...rest] = chapters();
  const programs = rest.filter(({ blocks }) => blocks.some(({ language }) => /^(ts|sql)$/.test(language)));
  const order = first!.blocks.find(({ language }) => language === "ts")!.text;
  await compileChapters(OUT, programs, { "order.mts": order });
  return programs;
}

/** Compiles a program for each chapter into a new folder. Throws what the compiler says. */
export async function compileChapters(
  folder: string,
  programs: readonly Chapter[],
  others: Readonly<Record<string, string>> = {},
): Promise<void> {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const [file, text] of Object.entries(others)) writeFileSync(`${folder}/${file}`, text);
  for (const chapter of programs) writeFileSync(`${folder}/${fileOf(chapter)}.ts`, programText(chapter));
  const options = {
    rootDir: ".",
    outDir: ".",
    declaration: false,
    paths: {
      perdure: ["../lib/index.d.ts"],
      "perdure/adapters": ["../lib/adapters.d.ts"],
      "perdure/testing": ["../lib/testing/index.d.ts"],
      "perdure/codec": ["../lib/codec/index.d.ts"],
      "perdure/aiki": ["../lib/aiki/index.d.ts"],
    },
  };
  const config = { extends: "../../tsconfig.json", compilerOptions: options, include: ["*.ts", "*.mts"], exclude: [] };
  writeFileSync(`${folder}/tsconfig.json`, JSON.stringify(config));
  await compile(folder);
}

/** Compiles a folder with a tsconfig.json. Throws what the compiler says. */
export async function compile(folder: string): Promise<void> {
  const { default: getExePath } = (await import(`${ROOT}node_modules/@typescript/native/lib/getExePath.js`)) as {
    default: () => string;
  };
  try {
    // The program itself: what tap puts around every Node process keeps the wrapper in bin/ from starting.
    execFileSync(getExePath(), ["-p", folder], { encoding: "utf8" });
  } catch (error) {
    throw new Error((error as { stdout: string }).stdout);
  }
}

/** Imports what the blocks use, and turns assertions and SQL into calls of the support. */
function programText({ blocks }: Chapter): string {
  const body = blocks
    .map(({ language, text }) => {
      if (language === "ts") return text.replace(/^(.*?)\s*\/\/=> (.*)$/gm, (_, code, value) => assertion(code, value));
      return language === "sql" ? `await sql(${JSON.stringify(text)});\n` : "";
    })
    .join("\n");
  const uses = (name: string): boolean => new RegExp(`\\b${name}\\b`).test(body);
  const makes = (name: string): boolean =>
    new RegExp(`\\b(const|class|let) ${name}\\b|^import \\{[^}]*\\b${name}\\b`, "m").test(body);
  const support = ["workflow", "perdure", "sql", "equal"].filter((name) => uses(name) && !makes(name));
  const library = Object.keys(perdure).filter((name) => uses(name) && !support.includes(name) && !makes(name));
  return [
    `import { ${support.join(", ")} } from ${JSON.stringify(SUPPORT)};`,
    `import { ${library.join(", ")} } from ${JSON.stringify(LIBRARY)};`,
    body,
    "export {};",
  ].join("\n");
}

function assertion(code: string, value: string): string {
  const made = /^\s*const (\w+)/.exec(code)?.[1];
  if (made) return `${code} equal(${made}, ${value});`;
  return `equal(${code.replace(/;$/, "")}, ${value});`;
}
