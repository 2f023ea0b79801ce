/** What sql/README.md asks of a migration that is applied under traffic, as far as its text shows. */
import { COMMITTED } from "../../lib/db/committed.ts";
import { committedMigrations, type Migration } from "../../lib/db/migration-files.ts";

/** Pattern of a statement → what is wrong with it. */
const FAULTS: readonly (readonly [pattern: RegExp, fault: string])[] = [
  [/\bcreate (unique )?index\b(?! concurrently)/, "builds an index without concurrently, in a file of its own"],
  [/\badd column\b[^,;]*\bgenerated\b/, "rewrites the table: a generated column"],
  [/\badd column\b[^,;]*\bdefault\b[^,;]*\(/, "rewrites the table: a default that is computed"],
  [/\balter column \w+ (set data )?type\b/, "rewrites the table: a column of another type"],
  [/\b(vacuum full|cluster|truncate)\b/, "rewrites the table"],
  [/\bset not null\b/, "reads the whole table: set not null"],
  [
    /\badd (constraint \w+ )?(check|foreign key|unique|primary key|exclude)\b(?![^;]*\bnot valid\b)/,
    "reads the whole table: a constraint that is not `not valid`",
  ],
  [
    /^(update|delete|insert into|merge into)\b/,
    "changes rows: leave it to the processes, or to sweeps of bounded size",
  ],
];

/** What the last release may still call. */
const TAKEN_AWAY =
  /^drop (table|view|function|procedure|type|trigger|index)\b|\bdrop column\b|\brename\b|\bdrop default\b/;

/** The tables and views of which a statement takes a lock that reading or writing waits for. */
const LOCKED =
  /^(?:alter (?:table|view)(?: only)?|drop (?:table|view)|create or replace view|create (?:constraint )?trigger [\s\S]*? on|lock table|truncate(?: table)?)(?: if exists)? (:schema\.\w+)/;

/** Functions that are called without their arguments' types would be ambiguous if there were two. */
const FUNCTION = /^create function (:schema\.\w+)/;

/** Each with the migration's name; none: it keeps to the rules. */
export function faultsIn(migration: Migration): string[] {
  const statements = statementsOf(migration.body);
  const made = new Set(
    statements.flatMap((text) => /^create table (?:if not exists )?(:schema\.\w+)/.exec(text)?.[1] ?? []),
  );
  const onNew = (text: string): boolean => [...made].some((table) => text.includes(`${table} `));
  const found: string[] = [];
  const old = statements.filter((text) => !onNew(text));
  for (const text of old) for (const [pattern, fault] of FAULTS) if (pattern.test(text)) found.push(fault);
  const expands = migration.worksWith === committedMigrations()[0]!.name;
  if (expands)
    for (const text of old) if (TAKEN_AWAY.test(text)) found.push("takes away what the last release may call");
  const locked = new Set(old.flatMap((text) => LOCKED.exec(text)?.[1] ?? []));
  if (locked.size > 1) found.push(`locks more than one relation: ${[...locked].join(", ")}`);
  for (const text of statements) {
    const name = FUNCTION.exec(text)?.[1];
    if (name && known().includes(`create function ${name}(`))
      found.push(`makes a function ${name} beside one of its name`);
  }
  return found.map((fault) => `${migration.name}: ${fault}`);
}

const known = (): string => COMMITTED[0]!.text.toLowerCase();

/** In lower case, without comments and what stands between quotes. */
function statementsOf(body: string): string[] {
  return body
    .replaceAll(/(\$\w*\$)[\s\S]*?\1/g, "''")
    .replaceAll(/--.*$/gm, "")
    .replaceAll(/'(?:[^']|'')*'/g, "''")
    .toLowerCase()
    .split(";")
    .map((text) => text.replaceAll(/\s+/g, " ").trim())
    .filter((text) => text !== "");
}
