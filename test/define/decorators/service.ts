/** Service classes as an application has them. Compiled by several compilers under both calling conventions: see decorators.test.ts. */
import { currentRun, currentStep, durable, event, start, step, transaction, workflow } from "perdure";

export const go = event<string>("go");

/** What a service is given by whoever makes it. */
export interface Journal {
  write(line: string): Promise<void>;
}

export class Base {
  protected readonly journal: Journal;
  #secret: string;

  constructor(journal: Journal, secret: string) {
    this.journal = journal;
    this.#secret = secret;
  }

  @step()
  async reserve(order: string): Promise<string> {
    await this.journal.write(`reserve ${order} ${this.#secret}`);
    return `reserved by ${this.#secret}`;
  }

  @step({ retry: { type: "fixed", maxAttempts: 3, delay: 1 } })
  async charge(order: string, cents: number): Promise<{ order: string; cents: number; attempt: number }> {
    await this.journal.write(`charge ${order}`);
    const { attempt, name } = currentStep();
    if (attempt < 2) throw new Error(`${name} fails first`);
    return { order, cents, attempt };
  }

  @transaction()
  async book(order: string): Promise<string> {
    const { rows } = await currentStep().tx!.query("select $1::text || ' booked' as text", [order]);
    return rows[0].text;
  }

  @workflow()
  async label(order: string): Promise<string> {
    return `label of ${order} by ${this.#secret} as ${currentRun().workflow}`;
  }

  @workflow({ version: "2" })
  async process(order: string): Promise<string[]> {
    const lines = [await this.reserve(order)];
    const { cents, attempt } = await this.charge(order, 42);
    lines.push(`${cents} at attempt ${attempt}`, await this.book(order));
    lines.push(await this.label(order));
    const child = await start(durable(this.label), `${order}, again`);
    lines.push(await child.result());
    lines.push(`${(await go.wait()).data} to ${this.#secret}`);
    await this.hidden();
    return lines;
  }

  @step()
  private async hidden(): Promise<void> {
    await this.journal.write("hidden");
  }
}

export class Derived extends Base {
  @step()
  override async reserve(order: string): Promise<string> {
    return `${await super.reserve(order)}, as ${currentStep().name}`;
  }
}
