/** Plays a program: carries its orders out, asks the reference what may have come of them, and compares. */
import { setTimeout as pause } from "node:timers/promises";
import { Perdure } from "../../lib/index.ts";
import type { Member } from "../support/crew.ts";
import { differences, isBusy, Observer, type Seen } from "./observe.ts";
import { EVENTS, type Scripted, scripted } from "./play.ts";
import { type Order, type Program, textOf } from "./program.ts";
import { type Answer, type Command, explore, type Family, hasEnded, type Verb } from "./reference.ts";
import { HOUR_MS, type Rig, SCHEMA } from "./rig.ts";
import { type Input, placeOf, type Script, stepName, type Version } from "./script.ts";

/** What a program came to that no course of the reference explains. */
export class Violation extends Error {
  constructor(text: string, program: Program, round: number) {
    super(`${text}\nin round ${round + 1} of the program\n${textOf(program)}`);
  }
}

interface Worker {
  readonly name: string;
  readonly member: Member;
  readonly versions: readonly Version[];
  /** `frozen`: its process stands still. */
  state: "up" | "frozen" | "down";
}

/** What is done, and what the reference is told of it: a command for one family, or for all. */
interface Act {
  readonly family: string | null;
  readonly command: Command | null;
  readonly after: number;
  readonly carryOut: () => Promise<unknown>;
}

/** A run that loses so many processes is blocked: five in a row. */
const MOST_LOST = 4;
/** Nobody waits longer for anything: an overloaded machine is slow, not stuck. */
const PATIENCE_MS = 60_000;
/** A frozen process may hold the row of a run: for that long the others may be stuck. */
const FROZEN_MS = 8000;
/** Where nothing moves for so long, it will not. */
const STILL_MS = 4000;
const MOST_HOURS = 40;
/** Among what is lost. */
const SERVER = "the server";
/** The answer of a call whose connection was cut: it may have been carried out, or not. */
const CUT = "PERDURE_CONNECTION";

const CODES: Readonly<Record<string, string>> = {
  PD001: "PERDURE_NOT_FOUND",
  PD002: "PERDURE_FINISHED",
  PD003: "PERDURE_CONFLICT",
  PD004: "PERDURE_STATE",
};
const nowhere = { book: never, enter: never, opened: never };
function never(): never {
  throw new Error("a client runs nothing");
}
const CLIENT: Readonly<Record<Version, Scripted>> = { 1: scripted("1", nowhere), 2: scripted("2", nowhere) };

/** How much was played. */
export interface Played {
  readonly rounds: number;
  readonly orders: number;
  readonly runs: number;
  readonly lost: number;
}

export async function play(rig: Rig, program: Program): Promise<Played> {
  const world = new World(rig, program);
  try {
    const played = await world.play();
    await world.close();
    return played;
  } catch (error) {
    await world.abandon();
    throw error;
  }
}

class World {
  readonly #rig: Rig;
  readonly #program: Program;
  readonly #client: Perdure;
  readonly #observer: Observer;
  readonly #workers: Worker[] = [];
  /** Of each family the states in which it may be. */
  readonly #families = new Map<string, Family[]>();
  readonly #starts = new Map<string, Input & { version: Version }>();
  #seen: readonly Seen[] = [];
  #now = 0;
  #deployed: Version = "1";
  #lost = 0;
  #sent = 0;
  #ids = 0;
  #round = 0;
  #orders = 0;
  #launches = 0;
  #servedBefore: Family["workers"] = {};
  /** The processes that something is done to in this round. */
  readonly #touched = new Set<Worker>();

  constructor(rig: Rig, program: Program) {
    this.#rig = rig;
    this.#program = program;
    const quiet = { debug() {}, info() {}, warn() {}, error() {} };
    const workflows = Object.values(CLIENT);
    this.#client = new Perdure({ database: rig.url, schema: SCHEMA, worker: false, workflows, logger: quiet });
    this.#observer = new Observer(rig, this.#client);
  }

  async play(): Promise<Played> {
    await this.#rig.empty();
    await this.#client.launch();
    for (const [round, orders] of this.#program.entries()) {
      this.#round = round;
      this.#orders += orders.length;
      this.#begin();
      const [only] = orders;
      if (orders.length === 1 && only?.do === "advance") await this.#advance(only.hours);
      else
        await this.#do(
          orders.flatMap((order) => this.#acts(crashes(orders) ? ({ ...order, sql: false } as Order) : order)),
        );
    }
    await this.#finale();
    return { rounds: this.#program.length, orders: this.#orders, runs: this.#seen.length, lost: this.#lost };
  }

  /** All leave, and their processes may be of use again. */
  async close(): Promise<void> {
    for (const { member, state } of this.#workers) {
      if (state !== "down") await member.call("shutdown", 1000);
      this.#rig.release(member);
    }
    await this.#client.shutdown({ timeout: 1000 });
  }

  /** After a failure nobody knows what they are at. */
  async abandon(): Promise<void> {
    await Promise.all(this.#workers.map(({ member }) => member.end("SIGKILL")));
    for (const { member } of this.#workers) this.#rig.release(member);
    await this.#client.shutdown({ timeout: 1000 });
  }

  // ---- Orders become acts.

  #acts(order: Order): Act[] {
    const { after } = order;
    const act = (family: string | null, command: Command | null, carryOut: () => Promise<unknown>): Act[] => [
      { family, command, after, carryOut },
    ];
    switch (order.do) {
      case "start": {
        this.#ids += 1;
        const [id, version] = [`run-${this.#ids}`, this.#deployed];
        const { script, delay, timeout, attempts } = order;
        this.#families.set(id, [this.#blank()]);
        this.#starts.set(id, { family: id, at: null, script, version });
        const options = {
          id,
          ...(delay !== null && { delay: delay * HOUR_MS }),
          ...(timeout !== null && { timeout: timeout * HOUR_MS }),
          ...(attempts > 1 && { retry: { type: "fixed", maxAttempts: attempts, delay: HOUR_MS } as const }),
        };
        const given: Input = { family: id, at: null, script };
        return act(id, { do: "start", id, version, start: order }, () =>
          this.#client.start(CLIENT[version].with(options), given),
        );
      }
      case "start again": {
        const [id, first] = nth([...this.#starts], order.run) ?? [];
        if (!id) return [];
        const { version, ...given } = first!;
        const input = order.same ? given : { ...given, at: "elsewhere" };
        return act(id, { do: "start again", id, same: order.same }, () =>
          this.#client.start(CLIENT[version].with({ id }), input),
        );
      }
      case "send": {
        const target = this.#target(order.run);
        this.#sent += 1;
        const [n, { event, reference }] = [this.#sent, order];
        const sql = "select :SCHEMA.send_event($1, $2, $3, $4)";
        return act(target.family, { do: "send", id: target.id, event, n, reference }, () =>
          order.sql
            ? this.#rig.sql(sql, [target.realId, event, JSON.stringify(n), reference])
            : this.#client.send(target.realId, EVENTS[event], n, reference === null ? {} : { reference }),
        );
      }
      case "cancel":
      case "pause":
      case "resume":
      case "wake":
      case "retry":
        return this.#control(order);
      case "fork": {
        const target = this.#target(order.run);
        const script = this.#scriptOf(target.id);
        const stage = script?.[order.stage];
        const [op, ...others] = stage ?? [];
        if (!op || others.length > 0 || !["book", "step", "hold", "flaky"].includes(op.do)) return [];
        this.#ids += 1;
        const [newId, at, version] = [`fork-${this.#ids}`, placeOf(order.stage, 0), order.version];
        const options = { from: stepName(op, at), id: newId, ...(version !== null && { version }) };
        return act(target.family, { do: "fork", id: target.id, at, newId, version }, () =>
          this.#client.get(target.realId).fork(options),
        );
      }
      case "open": {
        const { family } = this.#target(order.run);
        return act(family, { do: "open" }, () => this.#open(family));
      }
      case "advance":
        return act(null, { do: "hour" }, async () => {
          this.#now += 1;
          await this.#rig.pass();
        });
      case "deploy":
        this.#deployed = "2";
        return [];
      case "launch":
        return this.#launch(order);
      case "kill":
      case "freeze":
      case "thaw":
      case "shutdown":
        return this.#fault(order);
      case "deafen":
        return act(null, null, () => this.#rig.deafen());
      case "restart":
        if (!this.#mayLose()) return [];
        return act(null, { do: "serve", worker: SERVER, versions: [], rough: true }, () => this.#rig.restart());
      default:
        return order satisfies never;
    }
  }

  #control(order: Order & { do: Verb }): Act[] {
    const { id, realId, family } = this.#target(order.run);
    const carryOut = (): Promise<unknown> =>
      "sql" in order && order.sql
        ? this.#rig.sql(`select :SCHEMA.${order.do}_run($1)`, [realId])
        : this.#client.get(realId)[order.do]();
    return [{ family, command: { do: order.do, id }, after: order.after, carryOut }];
  }

  #launch({ versions, notify, warm, after }: Order & { do: "launch" }): Act[] {
    const [living, coming] = [
      this.#workers.filter(({ state }) => state !== "down").length,
      this.#launches - this.#workers.length,
    ];
    if (living + coming >= 3) return [];
    this.#launches += 1;
    const name = `w${this.#launches}`;
    const carryOut = async (): Promise<void> => {
      const member = await this.#rig.member();
      this.#workers.push({ name, member, versions, state: "up" });
      await member.call("launch", { schema: SCHEMA, versions, notify, warm });
    };
    return [{ family: null, command: { do: "serve", worker: name, versions, rough: false }, after, carryOut }];
  }

  #fault(order: Order & { do: "kill" | "freeze" | "thaw" | "shutdown"; worker: number }): Act[] {
    const from = order.do === "thaw" ? ["frozen"] : order.do === "kill" ? ["up", "frozen"] : ["up"];
    const worker = nth(
      this.#workers.filter((one) => from.includes(one.state) && !this.#touched.has(one)),
      order.worker,
    );
    if (!worker) return [];
    const kind = (order.do === "kill" || order.do === "freeze") && !this.#mayLose() ? "shutdown" : order.do;
    if (kind === "shutdown" && worker.state !== "up") return [];
    const { name, member } = worker;
    this.#touched.add(worker);
    worker.state = kind === "thaw" ? "up" : kind === "freeze" ? "frozen" : "down";
    const versions = kind === "thaw" ? worker.versions : [];
    const carryOut = async (): Promise<void> => {
      if (kind === "kill") await member.end("SIGKILL");
      if (kind === "freeze") member.process.kill("SIGSTOP");
      if (kind === "thaw") member.process.kill("SIGCONT");
      if (kind === "shutdown") await member.call("shutdown", 0);
    };
    return [
      { family: null, command: { do: "serve", worker: name, versions, rough: true }, after: order.after, carryOut },
    ];
  }

  #mayLose(): boolean {
    if (this.#lost >= MOST_LOST) return false;
    this.#lost += 1;
    return true;
  }

  /** A run as it was seen last; one that never was, where there is none. */
  #target(at: number): Pick<Seen, "id" | "realId" | "family"> {
    return nth(this.#seen, at) ?? { id: "nobody", realId: "nobody", family: "nobody" };
  }

  #scriptOf(id: string): Script | undefined {
    const family = [...this.#families.values()].flat().find(({ runs }) => runs[id]);
    return family?.runs[id]?.script;
  }

  /** What follows is done at the same time. */
  #begin(): void {
    this.#servedBefore = this.#serving();
    this.#touched.clear();
  }

  /** A family before a round. */
  #blank(): Family {
    return { now: this.#now, gate: false, workers: this.#servedBefore, rough: false, runs: {} };
  }

  #serving(): Record<string, readonly Version[]> {
    return Object.fromEntries(this.#workers.map(({ name, versions, state }) => [name, state === "up" ? versions : []]));
  }

  async #open(family: string): Promise<void> {
    await this.#rig.sql("insert into :SCHEMA.gate (family) values ($1) on conflict do nothing", [family]);
  }

  // ---- Rounds.

  async #advance(hours: number): Promise<void> {
    for (let n = 0; n < hours; n += 1) await this.#do(this.#acts({ do: "advance", hours: 1, after: 0 }));
  }

  async #do(acts: readonly Act[]): Promise<void> {
    if (!this.#families.has("nobody")) this.#families.set("nobody", [this.#blank()]);
    const answers = Promise.all(acts.map((act) => this.#answer(act)));
    const late = pause(FROZEN_MS, null);
    if ((await Promise.race([answers, late])) === null) this.#thawAll();
    const given = await answers;
    for (const { member, state } of this.#workers) if (state === "frozen") await this.#rig.expire(member.pid);
    const ambiguous = acts.some(({ command }) => command?.do === "serve" && command.worker === SERVER);
    for (const [id, families] of this.#families)
      this.#families.set(id, this.#courses(id, families, acts, given, ambiguous));
    await this.#settle();
  }

  async #answer({ after, carryOut }: Act): Promise<Answer> {
    await pause(after);
    try {
      await Promise.race([
        carryOut(),
        pause(PATIENCE_MS, null, { ref: false }).then(() => Promise.reject(new Error("no answer"))),
      ]);
      return "ok";
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      return CODES[code ?? ""] ?? code ?? message;
    }
  }

  /** The states in which a family may be after a round, whatever can be seen of it. */
  #courses(
    id: string,
    families: readonly Family[],
    acts: readonly Act[],
    given: readonly Answer[],
    ambiguous: boolean,
  ): Family[] {
    const own = acts.flatMap(({ family, command }, i) =>
      command && (family === null || family === id) ? [{ command, answer: given[i]! }] : [],
    );
    const fits = (should: Answer, i: number): boolean => {
      const { answer } = own[i]!;
      return should === answer || (ambiguous && should === "ok" && /STATE|CONFLICT|CONNECTION/.test(answer));
    };
    const commands = own.map(({ command }) => command);
    const courses = families.flatMap((family) => explore(family, commands));
    const possible = courses.filter(({ answers }) => answers.every(fits));
    const heard = own.map(({ answer }) => !ambiguous || answer !== CUT);
    if (heard.includes(false)) {
      const others = commands.filter((_, i) => heard[i]);
      possible.push(...families.flatMap((family) => explore(family, others)));
    }
    if (possible.length === 0) {
      const should = [...new Set(courses.map(({ answers }) => JSON.stringify(answers)))].join(" or ");
      const is = JSON.stringify(own.map(({ answer }) => answer));
      throw this.#violation(`family "${id}": ${JSON.stringify(commands)} should be answered ${should}, and is ${is}`);
    }
    return unique(possible.map(({ family }) => family));
  }

  /** Waits until nothing is left to do, and what there is is what may be. */
  async #settle(): Promise<void> {
    const began = performance.now();
    let [last, moved, matched] = ["", began, 0];
    for (;;) {
      const seen = await this.#observer.look();
      const { left, wrong } = this.#compare(seen);
      const versions = [...new Set(Object.values(this.#serving()).flat())];
      const busy = await isBusy(this.#rig, versions);
      const now = performance.now();
      matched = left && !busy ? matched + 1 : 0;
      if (left && matched === 2) {
        this.#seen = seen;
        for (const [id, families] of left) this.#families.set(id, families);
        return;
      }
      const text = JSON.stringify(seen) + busy;
      if (text !== last) [last, moved] = [text, now];
      if (now - began > FROZEN_MS && this.#thawAll()) moved = now;
      const still = !busy && now - moved > STILL_MS && now - began > STILL_MS * 2;
      if (still || now - began > PATIENCE_MS) throw this.#violation(wrong || `it does not come to rest: ${text}`);
      await pause(matched > 0 ? 4 : 8);
    }
  }

  #compare(seen: readonly Seen[]): { left: Map<string, Family[]> | null; wrong: string } {
    const left = new Map<string, Family[]>();
    const wrong: string[] = [];
    for (const [id, families] of this.#families) {
      const own = seen.filter(({ family }) => family === id);
      const found = families.map((family) => ({ family, differences: differences(family, own) }));
      const fits = found.filter((one) => one.differences.length === 0).map(({ family }) => family);
      left.set(id, fits);
      const nearest = found.sort((a, b) => a.differences.length - b.differences.length)[0]!;
      if (fits.length === 0)
        wrong.push(`family "${id}", of ${found.length} possible: ${nearest.differences.join("; ")}`);
    }
    return { left: wrong.length > 0 ? null : left, wrong: wrong.join("\n") };
  }

  /** A frozen process goes on: others may wait for a row that it holds. The reference learns that it serves. */
  #thawAll(): boolean {
    const frozen = this.#workers.filter(({ state }) => state === "frozen");
    for (const worker of frozen) {
      worker.member.process.kill("SIGCONT");
      worker.state = "up";
      const command: Command = { do: "serve", worker: worker.name, versions: worker.versions, rough: true };
      for (const [id, families] of this.#families)
        this.#families.set(
          id,
          unique(families.flatMap((family) => explore(family, [command]).map((course) => course.family))),
        );
    }
    return frozen.length > 0;
  }

  /** All faults end, all gates open, whoever is paused goes on, and time passes until there is no timer left. */
  async #finale(): Promise<void> {
    this.#begin();
    this.#round += 1;
    const frozen = this.#workers.filter(({ state }) => state === "frozen");
    await this.#do(frozen.flatMap(() => this.#acts({ do: "thaw", worker: 0, after: 0 })));
    const served = new Set(Object.values(this.#serving()).flat());
    if (served.size < 2)
      await this.#do(this.#acts({ do: "launch", versions: ["1", "2"], notify: true, warm: true, after: 0 }));
    const gates = this.#seen.flatMap((_, run) => this.#acts({ do: "open", run, after: 0 }));
    for (const gate of gates) await this.#do([gate]);
    const paused = this.#seen.flatMap(({ state }, run) => (state === "paused" ? [run] : []));
    for (const run of paused) await this.#do(this.#acts({ do: "resume", run, sql: false, after: 0 }));
    for (let n = 0; n < MOST_HOURS && this.#timers(); n += 1) await this.#advance(1);
    if (this.#timers()) throw this.#violation("there is always another timer");
    await this.#checkTicks();
  }

  /** Whether a run waits for a time. */
  #timers(): boolean {
    return [...this.#families.values()]
      .flat()
      .some((family) =>
        Object.values(family.runs).some(
          (run) =>
            !hasEnded(run) &&
            ((run.due !== null && run.due > family.now) ||
              run.deadline !== null ||
              run.ops.some((op) => op && !op.done && op.due !== null)),
        ),
      );
  }

  /** One run a slot, never before its time, done once. */
  async #checkTicks(): Promise<void> {
    const wrong = await this.#rig.sql(`
      select r.id, r.state, r.slot_at, r.created_at from :SCHEMA.run r where r.workflow = 'ticked' and (
        r.state <> 'completed' or r.created_at < r.slot_at
        or (select count(*) from :SCHEMA.ledger l where l.run = r.id) <> 1
        or exists (select from :SCHEMA.run o where o.workflow = 'ticked' and o.slot_at = r.slot_at and o.key <> r.key))`);
    if (wrong.length > 0) throw this.#violation(`slots of the schedule: ${JSON.stringify(wrong)}`);
  }

  #violation(text: string): Violation {
    return new Violation(text, this.#program, this.#round);
  }
}

function unique(families: readonly Family[]): Family[] {
  return [...new Map(families.map((family) => [JSON.stringify(family), family])).values()];
}

/** Who asks by SQL does not know what became of it: what is asked while the server crashes goes through the client. */
const crashes = (orders: readonly Order[]): boolean => orders.some((order) => order.do === "restart");

/** Counts around and around. */
const nth = <T>(list: readonly T[], at: number): T | undefined =>
  list.length > 0 ? list[at % list.length] : undefined;
