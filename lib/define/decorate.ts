/** The decorators that `step`, `transaction` and `workflow` are when they are called with options only: TC39's, and those of `experimentalDecorators`. */
import { said } from "../core/codec-refuse.ts";
import { PerdureError } from "../core/errors.ts";
import { attempt, checkKeys, shorten } from "../core/options.ts";
import { placeOf } from "../core/place.ts";
import type { AnyFunction } from "../core/types.ts";
import { classOf, type Kind, type Maker, makeMember } from "./member.ts";

/** A method that can be decorated: one that returns a promise. */
export type AsyncMethod = (...args: any[]) => Promise<unknown>;

/** What `@step()`, `@transaction()` and `@workflow()` are: decorators of async methods, under both calling conventions. The method keeps its type. */
export interface DurableMethod {
  /** TC39 decorators. */
  <This extends object, F extends AsyncMethod>(
    method: F,
    context: ClassMethodDecoratorContext<This, F> & {
      readonly name: string;
      readonly static: false;
      readonly private: false;
    },
  ): F;
  /** TypeScript's `experimentalDecorators`. */
  <F extends AsyncMethod>(
    prototype: object & { readonly prototype?: never },
    key: string,
    descriptor: TypedPropertyDescriptor<F>,
  ): TypedPropertyDescriptor<F>;
}

/** True where `step(…)`, `transaction(…)` or `workflow(…)` is called for a decorator: with options only, or with nothing. */
export function isDecorator(kind: Kind, given: readonly unknown[]): boolean {
  if (given.length > 2 || typeof given[0] === "function") {
    const text = `${kind}() needs a name and a function: ${kind}("name", fn); as a decorator it has parentheses: @${kind}()`;
    throw new PerdureError("PERDURE_OPTION", text);
  }
  return given.length === 0 || (given.length === 1 && typeof given[0] !== "string");
}

/** The decorator that `maker` makes with these options. `called` is the function that the user's code called. */
export function decorator<T>(maker: Maker<T>, given: unknown, called: AnyFunction): DurableMethod {
  const where = `@${maker.kind}()`;
  const options = checkKeys((given ?? {}) as { name?: string }, maker.known, where);
  const place = placeOf(called);
  const put = (target: unknown, second: unknown, descriptor?: PropertyDescriptor | number): unknown => {
    const context = contextOf(second);
    if (context) {
      const { kind, name, static: isStatic, private: isPrivate } = context;
      const on = isStatic ? `static ${kind}` : isPrivate ? `private ${kind}` : kind;
      const member = makeMember(maker, options, checkTarget(where, on, name, target), String(name), place);
      context.addInitializer(function () {
        member.find(this as object);
      });
      return member.unbound;
    }
    const { on, method, of } = seen(target, second, descriptor);
    const member = makeMember(maker, options, checkTarget(where, on, second, method, of), String(second), place);
    member.settle(target as object);
    return Object.getOwnPropertyDescriptor(target, second as string);
  };
  const decorate = (...given: Parameters<typeof put>): unknown => {
    try {
      return put(...given);
    } catch (cause) {
      if (attempt(() => cause instanceof PerdureError)) throw cause;
      const text = `${where} cannot stand there, as ${said(cause)} was thrown; it decorates async methods of instances`;
      throw new PerdureError("PERDURE_OPTION", text, { cause });
    }
  };
  return decorate as DurableMethod;
}

function contextOf(second: unknown): ClassMethodDecoratorContext | undefined {
  const found = typeof second === "object" && second !== null && "kind" in second && "addInitializer" in second;
  return found ? (second as ClassMethodDecoratorContext) : undefined;
}

/** What an experimental decorator stands on. */
function seen(
  target: unknown,
  key: unknown,
  descriptor: PropertyDescriptor | number | undefined,
): { on: string; method: unknown; of: string } {
  const isClass = typeof target === "function";
  const of = isClass ? target.name : classOf((target ?? {}) as object);
  if (key === undefined) return { on: "class", method: undefined, of };
  if (typeof descriptor === "number") return { on: "parameter of method", method: undefined, of };
  if (descriptor?.get || descriptor?.set) return { on: "accessor", method: undefined, of };
  const method: unknown = descriptor?.value;
  const on = typeof method === "function" ? "method" : "field";
  return { on: isClass ? `static ${on}` : on, method, of };
}

/** The method, if a decorator can stand on it. Throws PERDURE_OPTION with what it stands on. */
function checkTarget(where: string, on: string, name: unknown, method: unknown, of = ""): AnyFunction {
  const refuse = (what: string, help: string): PerdureError => {
    const named = name === undefined ? "" : ` ${shorten(name)}`;
    const text = `${where} cannot stand on ${what}${named}${of ? ` of class ${of}` : ""}; ${help}`;
    return new PerdureError("PERDURE_OPTION", text);
  };
  const wanted = "it decorates async methods of instances";
  if (on === "private method") throw refuse(on, `${wanted}: in place of #, TypeScript's \`private\` will do`);
  if (on === "static method") throw refuse(on, `${wanted}: for a function, ${where.slice(1, -2)}("name", fn) will do`);
  if (on !== "method" || typeof method !== "function") throw refuse(on, wanted);
  if (typeof name !== "string") throw refuse("method", `${wanted}, which need a name that is no symbol`);
  if (/GeneratorFunction$/.test(method.constructor.name)) throw refuse("generator", wanted);
  return method as AnyFunction;
}
