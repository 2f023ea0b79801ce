/** From what the driver or the server reports to an error of ours: one table, a sentence and a fix each. */

import { type ErrorCode, PerdureError, RunConflictError, RunFinishedError } from "../core/errors.ts";

/** The fields of a driver's error that are safe to show: no connection, no client, no password hangs on them. */
interface Report {
  readonly key: string;
  readonly message: string;
  readonly detail: string | undefined;
}

interface Rule {
  /** Tested against the SQLSTATE or errno; against the message where there is neither. */
  readonly match: RegExp;
  readonly code: ErrorCode;
  readonly fix: string;
}

const UNREACHABLE = "check that the server runs and that host and port are right";
const TLS = "the server and the client disagree about TLS: set `ssl` or `sslmode` in the `database` option";
const NO_LOGIN = "check user, password and pg_hba.conf";
const MIGRATE = "call migrate() of an engine, or launch with `migrate` on";

/** What the driver itself says of a connection: it gives no code. */
const LOST: Rule = {
  match:
    /Connection terminated|timeout exceeded when trying to connect|connection error|not queryable|read timeout|timeout expired/i,
  code: "PERDURE_CONNECTION",
  fix: UNREACHABLE,
};
const RULES: readonly Rule[] = [
  { match: /^PD001$/, code: "PERDURE_NOT_FOUND", fix: "" },
  { match: /^PD002$/, code: "PERDURE_FINISHED", fix: "" },
  { match: /^PD003$/, code: "PERDURE_CONFLICT", fix: "" },
  { match: /^PD004$/, code: "PERDURE_STATE", fix: "" },
  { match: /^PD005$/, code: "PERDURE_OPTION", fix: "" },
  { match: /^PD006$/, code: "PERDURE_SCHEMA", fix: "" },
  { match: /^(ECONNREFUSED|EHOSTUNREACH|ENETUNREACH|ENOENT)$/, code: "PERDURE_CONNECTION", fix: UNREACHABLE },
  { match: /^(ENOTFOUND|EAI_AGAIN)$/, code: "PERDURE_CONNECTION", fix: "the host name does not resolve: check it" },
  { match: /^(ETIMEDOUT|ECONNRESET|EPIPE|ECONNABORTED)$/, code: "PERDURE_CONNECTION", fix: UNREACHABLE },
  { match: /^08/, code: "PERDURE_CONNECTION", fix: UNREACHABLE },
  { match: /^(57P0[1-5]|25P03)$/, code: "PERDURE_CONNECTION", fix: "the server ended the session: try again" },
  {
    match: /^53300$/,
    code: "PERDURE_CONNECTION",
    fix: "the server has no connection left: lower `max` of the pools, or raise max_connections",
  },
  { match: /^(28P01|28000)$/, code: "PERDURE_AUTH", fix: NO_LOGIN },
  { match: /^3D000$/, code: "PERDURE_AUTH", fix: "create the database, or correct its name in the `database` option" },
  {
    match: /does not support SSL|^(CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|ERR_SSL|ERR_TLS)/,
    code: "PERDURE_AUTH",
    fix: TLS,
  },
  { match: /^SASL|password must be a string/, code: "PERDURE_AUTH", fix: NO_LOGIN },
  {
    match: /^55P03$/,
    code: "PERDURE_DATABASE",
    fix: "an open transaction elsewhere holds the lock: end it, then try again",
  },
  { match: /^57014$/, code: "PERDURE_DATABASE", fix: "raise statement_timeout for this role, or try again" },
  { match: /^(53100|58030)$/, code: "PERDURE_DATABASE", fix: "the server is out of disk space: free some" },
  {
    match: /^25P02$/,
    code: "PERDURE_STATE",
    fix: "an error before this aborted the transaction: roll it back, or back to a savepoint",
  },
  {
    match: /^(40001|40P01)$/,
    code: "PERDURE_DATABASE",
    fix: "another transaction was in the way: roll back, and run this one again",
  },
  { match: /^42501$/, code: "PERDURE_PRIVILEGE", fix: "" },
  { match: /^25006$/, code: "PERDURE_READ_ONLY", fix: "connect to the primary, with a role that may write" },
  { match: /^(3F000|42P01|42883|42703)$/, code: "PERDURE_SCHEMA", fix: MIGRATE },
  LOST,
];

// A disk that is full, or fails, fails for all: nothing is wrong with what was to be written.
const TRANSIENT =
  /^(08|40001|40003|40P01|55P03|57014|53300|53100|58030|57P0|25P03|E(CONN|PIPE|TIMEDOUT|HOST|NET|NOTFOUND|AI_))/;
const BROKEN = /^(08|57P0[1-5]|25P03|25006|E(CONN|PIPE|TIMEDOUT|HOST|NET))/;

/** Names for the GRANT that is proposed. */
export interface Grant {
  readonly role?: string | undefined;
  readonly schema?: string | undefined;
  /** The schema is being made: whoever makes it owns it. */
  readonly making?: boolean | undefined;
}

/** `doing` completes "while …". */
export function toPerdureError(error: unknown, doing: string, grant: Grant = {}): PerdureError {
  if (isOurs(error)) return error;
  const report = reportOf(error);
  const rule = RULES.find((candidate) => candidate.match.test(report.key));
  const run = ofRun(rule, report);
  if (run) return run;
  const fix = rule?.code === "PERDURE_PRIVILEGE" ? grantFor(report.message, grant) : rule?.fix;
  const text = `while ${doing}: ${report.message}${fix ? `; ${fix}` : ""}`;
  return new PerdureError(rule?.code ?? "PERDURE_DATABASE", text, { cause: cleanCause(error) });
}

/** Whether the same statement may succeed when it is issued again, on this or another connection. */
export const isTransient = (error: unknown): boolean => matches(error, TRANSIENT) || matches(error, LOST.match);

/** Whether a statement took longer than it may. */
export const isTooSlow = (error: unknown): boolean => matches(error, /^57014$/);

/** Whether a pooler, or a server, takes no settings with a new connection. */
export const isSettingRefused = (error: unknown): boolean => /parameter|options/i.test(messageOf(error));

/** Whether a lock was waited for in vain. */
export const isLocked = (error: unknown): boolean => matches(error, /^55P03$/);

/** Whether a row is there already. */
export const isTaken = (error: unknown): boolean => matches(error, /^23505$/);

/** Whether another transaction was in the way, so that this one was rolled back: nothing of it took effect. */
export const isCrossed = (error: unknown): boolean => matches(error, /^(40001|40P01)$/);

/** Whether the connection that reported it is of no more use. A primary that became a standby counts. */
export const isConnectionLost = (error: unknown): boolean => matches(error, BROKEN) || matches(error, LOST.match);

function matches(error: unknown, pattern: RegExp): boolean {
  if (isOurs(error)) return error.cause !== undefined && matches(error.cause, pattern);
  return pattern.test(reportOf(error).key);
}

/** Errors with a run in them: the SQL puts its id into DETAIL and the sentence into the message. */
function ofRun(rule: Rule | undefined, { message, detail }: Report): PerdureError | undefined {
  const runId = detail ?? /run "([^"]*)"/.exec(message)?.[1] ?? "";
  if (rule?.code === "PERDURE_FINISHED") return new RunFinishedError(runId, message);
  if (rule?.code === "PERDURE_CONFLICT") return new RunConflictError(runId, message);
  if (rule && /PD00/.test(rule.match.source)) return new PerdureError(rule.code, message);
  return undefined;
}

function grantFor(message: string, { role, schema, making }: Grant): string {
  const [, kind, name] = /(database|schema) "?([^"]+?)"?$/.exec(message) ?? [];
  const to = `to ${role === undefined ? "<role>" : quoted(role)}`;
  if (/must be owner/.test(message)) return "migrate with the role that owns the schema";
  if (kind === "database") return `run: grant create on database ${quoted(name!)} ${to}`;
  if (kind === "schema" && making) return `run: grant usage, create on schema ${quoted(name!)} ${to}`;
  return grantWorker(role, schema);
}

/** What lets a role work: said to whoever owns the schema. */
export function grantWorker(role: string | undefined, schema: string | undefined): string {
  const name = role === undefined ? "'<role>'" : `'${role.replaceAll("'", "''")}'`;
  return `as the owner of the schema, run: select ${schema === undefined ? "<schema>" : quoted(schema)}.grant_to(${name}, 'worker')`;
}

const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;

/** Also an error of another copy of this package. */
export function isOurs(error: unknown): error is PerdureError {
  return (
    error instanceof PerdureError ||
    (error instanceof Error && /^PERDURE_/.test(String((error as { code?: unknown }).code)))
  );
}

function reportOf(error: unknown): Report {
  const { code, detail } = (error ?? {}) as { code?: unknown; detail?: unknown };
  const message = redact(messageOf(error));
  return {
    key: typeof code === "string" && code !== "" ? code : message,
    message,
    detail: typeof detail === "string" ? detail : undefined,
  };
}

/** Where a name has several addresses Node reports one error for all, with an empty message. */
function messageOf(error: unknown): string {
  if (error instanceof AggregateError && !error.message) return error.errors.map(messageOf).join(", ");
  return error instanceof Error ? error.message : String(error);
}

/** A copy with the fields that explain, and without the objects that drivers hang on their errors. */
function cleanCause(error: unknown): Error {
  const copy = new Error(redact(messageOf(error)));
  if (error instanceof Error) {
    copy.name = error.name;
    if (error.stack) copy.stack = redact(error.stack);
  }
  for (const field of ["code", "severity", "detail", "hint", "where", "schema", "table", "column", "constraint"]) {
    const value = (error as Record<string, unknown> | undefined)?.[field];
    if (typeof value === "string" && value !== "") Object.assign(copy, { [field]: redact(value) });
  }
  return copy;
}

/** A password may hold the signs that end it in a URL that is written well. */
const redact = (text: string): string =>
  text.replace(/(\w+:\/\/[^\s:@/]*:)\S*@/g, "$1***@").replace(/(\bpassword=)[^\s&]+/gi, "$1***");
