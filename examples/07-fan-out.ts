/**
 * A report is made chapter by chapter: one child workflow for each, all side by side, on as many processes as there are. The parent joins
 * them in the order in which it started them. One chapter fails; the parent catches that as it would any error, and the others are kept.
 */
import { Perdure, RunFailedError, start, step, workflow } from "perdure";
import { fresh } from "./fresh.ts";

const layOut = step("lay-out", async (chapter: string) => {
  if (chapter === "appendix") throw new Error("a picture is missing");
  return chapter.length;
});

const makeChapter = workflow("make-chapter", async (chapter: string) => {
  const pages = await layOut(chapter);
  return `${chapter}, ${pages} pages`;
});

const makeReport = workflow("make-report", async (chapters: string[]) => {
  // Each start() resolves when the child is durable. From then on it goes its own way, also when this process dies.
  const children = await Promise.all(chapters.map((chapter) => start(makeChapter, chapter)));
  const lines: string[] = [];
  for (const child of children) {
    try {
      lines.push(await child.result());
    } catch (error) {
      if (!(error instanceof RunFailedError)) throw error;
      lines.push(`left out: ${(error.cause as Error).message}`);
    }
  }
  // Called like a function, a child is started and awaited in one go.
  return [await makeChapter("cover"), ...lines];
});

await fresh("example_07");
const perdure = new Perdure({ schema: "example_07", workflows: [makeReport, makeChapter] });
await perdure.launch();
const run = await perdure.start(makeReport, ["introduction", "figures", "appendix", "outlook"]);
for (const line of await run.result()) console.log(line);
await perdure.shutdown();

// Output:
// cover, 5 pages
// introduction, 12 pages
// figures, 7 pages
// left out: a picture is missing
// outlook, 7 pages
