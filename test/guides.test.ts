/** The guides and the index of the examples are true: each page is a program that runs, every link leads somewhere, no example is left out. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { test } from "tap";
import { freshDatabase } from "./support/postgres.ts";
import { blocksOf, compileChapters, programOf, ROOT } from "./support/readme.ts";
import { runChapter } from "./support/readme-chapter.ts";

const GUIDES = `${ROOT}examples/guides`;
const OUT = `${ROOT}dist/guides`;
const pages = readdirSync(GUIDES).filter((file) => file.endsWith(".md"));
const read = (path: string): string => readFileSync(path, "utf8");

const programs = pages.map((page) => ({ title: basename(page, ".md"), blocks: blocksOf(read(`${GUIDES}/${page}`)) }));
await compileChapters(OUT, programs);

for (const page of programs) {
  test(`the guide ${page.title} runs as it stands`, async (t) => {
    const promised = page.blocks.flatMap(({ text }) => text.match(/\/\/=>/g) ?? []).length;
    t.ok(promised > 0, "it promises something");
    t.equal(await runChapter(programOf(page, OUT), await freshDatabase(t)), promised, `${promised} assertions`);
  });
}

test("what the guides and the index link to exists", (t) => {
  for (const page of [`${ROOT}examples/README.md`, ...pages.map((name) => `${GUIDES}/${name}`)]) {
    for (const [, link] of read(page).matchAll(/\]\(([^)]+)\)/g)) {
      t.ok(existsSync(join(dirname(page), link!.split("#")[0]!)), `${basename(page)}: ${link}`);
    }
  }
  t.end();
});

test("the index names every example, every framework and every guide", (t) => {
  const index = read(`${ROOT}examples/README.md`);
  const files = readdirSync(`${ROOT}examples`).filter((file) => /^\d\d-.*\.ts$/.test(file));
  const frameworks = readdirSync(`${ROOT}examples/frameworks`)
    .filter((file) => file !== "shop.ts")
    .map((file) => (file === "nest" ? "nest/main.ts" : file));
  const wanted = [
    ...files,
    ...frameworks.map((file) => `frameworks/${file}`),
    ...pages.map((page) => `guides/${page}`),
  ];
  t.ok(wanted.length > 30);
  t.same(
    wanted.filter((file) => !index.includes(`](${file}`)),
    [],
  );
  t.end();
});
