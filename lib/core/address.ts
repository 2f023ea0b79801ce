/** The slot of a call: what it asks for (its address) and the how-manieth such call it is (its ordinal). Pure. */

/** Characters that part a slot: escaped where a name holds them, so that no two addresses are alike. */
const RESERVED = /[%@#/]/g;

function escaped(name: string): string {
  return RESERVED.test(name) ? name.replace(RESERVED, (c) => `%${c.charCodeAt(0).toString(16)}`) : name;
}

/** `step:reserve/8fKq…`: a step by the hash of its arguments. */
export function argumentsAddress(kind: string, name: string, hash: string): string {
  return `${kind}:${escaped(name)}/${hash}`;
}

/** `step:reserve@parcel-1`: a step by the reference that the caller gave. */
export function referenceAddress(kind: string, name: string, reference: string): string {
  return `${kind}:${escaped(name)}@${escaped(reference)}`;
}

/** `event:payment-received`, `sleep:`: a wait, or an anonymous step, by its name alone. */
export function nameAddress(kind: string, name: string): string {
  return `${kind}:${escaped(name)}`;
}

/** The hash of arguments in a slot; null: it has none, or one of names alone, as a race has. */
export function hashIn(slot: string): string | null {
  return /^(?:step|transaction|start|child):[^/@]*\/([^/#]+)#\d+$/.exec(slot)?.[1] ?? null;
}

/** Counts the calls of each address in a pass, in the order in which they are made. */
export class Ordinals {
  #next: Map<string, number> | undefined;

  /** The slot of the next call of an address: `step:reserve/8fKq…#0`, then `#1`. */
  take(address: string): string {
    this.#next ??= new Map();
    const ordinal = this.#next.get(address) ?? 0;
    this.#next.set(address, ordinal + 1);
    return `${address}#${ordinal}`;
  }
}
