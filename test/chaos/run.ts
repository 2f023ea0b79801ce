/** `npm run chaos`: see README, "Tests, demo, benchmarks". */
import { parseArgs } from "node:util";
import { chaos } from "./chaos.ts";
import { NOT_ASKED } from "./checks.ts";
import { told } from "./report.ts";
import { FAULTS, type Fault, FULL, type Size, SMALL, scaled } from "./size.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seed: { type: "string" },
    small: { type: "boolean", default: false },
    scale: { type: "string" },
    runs: { type: "string" },
    seconds: { type: "string" },
    fault: { type: "string", multiple: true, default: [] },
    gentle: { type: "boolean", default: false },
    hasty: { type: "boolean", default: false },
    mutants: { type: "boolean", default: false },
  },
});

const print = (line: string): void => void process.stdout.write(`${line}\n`);

/** `--fault kill=10`: so many of one kind, in place of those of the size; `--fault none` leaves out all that are not named. */
function sizeOf(): Size {
  const named = values.small ? SMALL : FULL;
  const size = values.scale ? scaled(named, Number(values.scale)) : named;
  const given = values.fault.filter((text) => text !== "none").map((text) => text.split("=") as [string, string]);
  for (const [fault] of given)
    if (!Object.hasOwn(FAULTS, fault)) throw new Error(`no such fault: ${fault}; there are ${Object.keys(FAULTS)}`);
  const none = Object.fromEntries(Object.keys(FAULTS).map((fault) => [fault, 0])) as Record<Fault, number>;
  return {
    ...size,
    seed: values.seed ? Number(values.seed) : Math.floor(Math.random() * 1_000_000_000),
    runs: values.runs ? Number(values.runs) : size.runs,
    seconds: values.seconds ? Number(values.seconds) : size.seconds,
    faults: {
      ...(values.fault.includes("none") ? none : size.faults),
      ...Object.fromEntries(given.map(([fault, many]) => [fault, Number(many)])),
    },
    rough: !values.gentle,
  };
}

async function main(): Promise<void> {
  if (values.mutants) {
    const { mutants } = await import("./mutants.ts");
    process.exitCode = (await mutants(print, positionals)) ? 0 : 1;
    return;
  }
  const size = sizeOf();
  print(
    `chaos with seed ${size.seed}: ${size.runs} runs, ${Object.values(size.faults).reduce((sum, many) => sum + many)} faults in ${size.seconds} s`,
  );
  const { violations, gentle, figures, folder } = await chaos(size, { say: print, hasty: values.hasty });
  for (const line of told(figures)) print(line);
  print(
    `not asked: ${Object.entries(NOT_ASKED)
      .map(([invariant, what]) => `${invariant} ${what}`)
      .join(", ")}`,
  );
  for (const line of violations.slice(0, 100)) print(`VIOLATION ${line}`);
  for (const line of gentle) print(`TOO GENTLE ${line}`);
  print(
    `${violations.length} violations; seed ${size.seed}${violations.length + gentle.length > 0 ? `; histories and logs in ${folder}` : ""}`,
  );
  process.exitCode = violations.length > 0 ? 1 : gentle.length > 0 ? 2 : 0;
}

await main();
