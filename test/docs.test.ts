/** What an editor shows: every public name is explained, what can be called has an example, and the examples compile. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import ts from "typescript";
import { ROOT } from "./support/readme.ts";

/** They say all there is to say where they are only read. What is written or called is explained whatever its name. */
const SELF_EVIDENT = new Set(
  "id name type workflow version state queue priority attempt tags createdAt runId code ~standard winner value".split(
    " ",
  ),
);

const manifest: { exports: Record<string, { types?: string }> } = JSON.parse(
  readFileSync(`${ROOT}package.json`, "utf8"),
);
const entries = Object.entries(manifest.exports).flatMap(([path, { types }]) =>
  types ? [{ name: path.replace(".", "perdure"), file: join(ROOT, types) }] : [],
);

const options: ts.CompilerOptions = {
  strict: true,
  // What an example leaves out may be anything, and what it hands to a callback of that, too.
  noImplicitAny: false,
  noEmit: true,
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  types: ["node"],
  typeRoots: [`${ROOT}node_modules/@types`],
  skipLibCheck: true,
  paths: Object.fromEntries(entries.map(({ name, file }) => [name, [file]])),
};

const program = ts.createProgram(
  entries.map(({ file }) => file),
  options,
);
const checker = program.getTypeChecker();

const explained = (symbol: ts.Symbol): boolean => symbol.getDocumentationComment(checker).length > 0;

function examplesOf(symbol: ts.Symbol): string[] {
  const tags = symbol.getJsDocTags(checker).filter(({ name }) => name === "example");
  // Between backticks an "@" does not begin another tag.
  return tags.map(({ text }) => ts.displayPartsToString(text).replace(/^`(.*)`$/, "$1"));
}

interface PublicName {
  readonly entry: string;
  readonly name: string;
  readonly symbol: ts.Symbol;
}

const names: PublicName[] = entries.flatMap(({ name: entry, file }) => {
  const source = checker.getSymbolAtLocation(program.getSourceFile(file)!);
  return (source ? checker.getExportsOfModule(source) : []).map((exported) => ({
    entry,
    name: exported.name,
    symbol: exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported,
  }));
});

/** The members of a class or an interface, or of the object types in a type. */
function membersOf(symbol: ts.Symbol): ts.Symbol[] {
  const found: ts.Symbol[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isTypeElement(node) || ts.isClassElement(node)) {
      const name = node.name;
      const hidden = !name || ts.isPrivateIdentifier(name) || ts.isComputedPropertyName(name);
      const member = hidden ? undefined : checker.getSymbolAtLocation(name);
      if (member) found.push(member);
    }
    // What a callback or a result looks like inside is its own affair.
    if (!ts.isTypeElement(node) && !ts.isClassElement(node)) ts.forEachChild(node, visit);
  };
  const typed = ts.SymbolFlags.Class | ts.SymbolFlags.Interface | ts.SymbolFlags.TypeAlias;
  if (symbol.flags & typed) for (const declaration of symbol.declarations ?? []) ts.forEachChild(declaration, visit);
  return [...new Set(found)];
}

const readOnly = (member: ts.Symbol): boolean =>
  (member.declarations ?? []).every((one) => ts.getCombinedModifierFlags(one) & ts.ModifierFlags.Readonly);

test("every public name is explained", (t) => {
  t.ok(names.length > 60);
  t.same(
    names.filter(({ symbol }) => !explained(symbol)).map(({ entry, name }) => `${entry}: ${name}`),
    [],
  );
  t.end();
});

test("every function, class and constant has an example", (t) => {
  const called = ts.SymbolFlags.Function | ts.SymbolFlags.Class | ts.SymbolFlags.Variable;
  const silent = names.filter(({ symbol }) => symbol.flags & called && examplesOf(symbol).length === 0);
  t.same(
    silent.map(({ entry, name }) => `${entry}: ${name}`),
    [],
  );
  t.end();
});

test("every option, method and property is explained", (t) => {
  // What perdure/aiki has is named and shaped by code that exists; its page says what is different.
  const own = names.filter(({ entry }) => entry !== "perdure/aiki");
  const silent = own.flatMap(({ entry, name, symbol }) =>
    membersOf(symbol)
      .filter((member) => !explained(member))
      .filter((member) => !(SELF_EVIDENT.has(member.name) && (readOnly(member) || member.name === "type")))
      .map((member) => `${entry}: ${name}.${member.name}`),
  );
  t.same([...new Set(silent)], []);
  t.end();
});

/** What examples take for granted, beside the public names. What else they do not declare may be anything. */
const GIVEN = `declare const perdure: import("perdure").Perdure;
declare const run: import("perdure").RunHandle<any>;
declare const handle: import("perdure").RunHandle<any>;
declare const tokens: import("perdure").Stream<string>;
declare const error: any;
`;

/** Those of the names that a text uses and does not declare itself. */
function used(all: Iterable<string>, text: string): string[] {
  const declared = (name: string): boolean =>
    new RegExp(`\\b(const|let|function|class|import) (\\{[^}]*\\b)?${name}\\b`).test(text);
  return [...new Set(all)].filter((name) => new RegExp(`\\b${name}\\b`).test(text) && !declared(name));
}

function programOf(entry: string, text: string): string {
  const own = names.filter((one) => one.entry === entry).map(({ name }) => name);
  const main = names.filter((one) => one.entry === "perdure" && !own.includes(one.name)).map(({ name }) => name);
  const imports = [
    [entry, used(own, text)],
    ["perdure", used(main, text)],
  ] as const;
  const lines = imports.map(([from, list]) => (list.length ? `import { ${list.join(", ")} } from "${from}";` : ""));
  const engine =
    entry === "perdure/testing" ? `${GIVEN}\ndeclare const t: import("perdure/testing").TestBench;` : GIVEN;
  const given = entry === "perdure/aiki" ? "" : engine;
  // "…" stands for code that the reader has.
  const code = text.replaceAll("…", "null! as any");
  const body = /^import /m.test(code) ? code : `async function example(): Promise<unknown> {\n${code}\nreturn;\n}`;
  return `${lines.join("\n")}\n${given}\n${body}\nexport {};\n`;
}

/** What the compiler says about texts that are no files. */
function diagnose(texts: ReadonlyMap<string, string>): readonly ts.Diagnostic[] {
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists, readFile } = host;
  host.getSourceFile = (file, ...rest) => {
    const text = texts.get(file);
    return text === undefined ? getSourceFile(file, ...rest) : ts.createSourceFile(file, text, ts.ScriptTarget.ES2022);
  };
  host.fileExists = (file) => texts.has(file) || fileExists(file);
  host.readFile = (file) => texts.get(file) ?? readFile(file);
  return ts.getPreEmitDiagnostics(ts.createProgram([...texts.keys()], options, host));
}

const CANNOT_FIND_NAME = [2304, 2552, 18004];

test("the examples compile", (t) => {
  const texts = new Map<string, string>();
  for (const { entry, name, symbol } of names) {
    const methods = symbol.flags & (ts.SymbolFlags.Class | ts.SymbolFlags.Interface) ? membersOf(symbol) : [];
    for (const one of [symbol, ...methods]) {
      examplesOf(one).forEach((text, index) => {
        const file = `${ROOT}dist/example-${name}-${one.name}-${index}.mts`;
        texts.set(file, programOf(entry, text));
      });
    }
  }
  t.ok(texts.size > 30, `${texts.size} examples`);
  for (const { code, file, messageText } of diagnose(texts)) {
    if (!file || !CANNOT_FIND_NAME.includes(code)) continue;
    const [, missing] = /'([\w$]+)'/.exec(ts.flattenDiagnosticMessageText(messageText, "\n"))!;
    const text = texts.get(file.fileName)!;
    const declaration = `declare const ${missing}: any;`;
    const type = new RegExp(`[:<] ?${missing}\\b`).test(text) ? `type ${missing} = any;` : "";
    if (!text.includes(declaration)) texts.set(file.fileName, `${text}${declaration}${type}\n`);
  }
  const wrong = diagnose(texts).map(({ file, start, messageText }) => {
    const line = file && start !== undefined ? file.text.slice(start).split("\n")[0] : "";
    return `${file?.fileName.replace(/.*\/example-/, "")}: ${line}: ${ts.flattenDiagnosticMessageText(messageText, " ")}`;
  });
  t.same(wrong, []);
  t.end();
});
