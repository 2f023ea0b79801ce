/** What a user installs with the package: few others, none of which runs anything at its installation. What is in it: readme.test.ts. */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "tap";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const json = (file: string): any => JSON.parse(readFileSync(`${ROOT}${file}`, "utf8"));

/** Why each is there stands in the README. */
const DEPENDENCIES = ["cron-parser", "pg", "pg-listen", "superjson"];
/** With all that is below them. A new one needs a reason. */
const MOST_PACKAGES = 23;
const LICENCES = ["MIT", "ISC"];

test("what is installed with the package is little, free, from the registry, and has no install script", (t) => {
  const { packages } = json("package-lock.json");
  const below = Object.entries<any>(packages).filter(
    ([path, { dev, devOptional }]) => path !== "" && !dev && !devOptional,
  );
  t.same(Object.keys(json("package.json").dependencies).sort(), DEPENDENCIES);
  t.ok(below.length >= DEPENDENCIES.length && below.length <= MOST_PACKAGES, `${below.length} packages`);
  for (const [path, { hasInstallScript, license, integrity, resolved, link }] of below) {
    t.notOk(hasInstallScript, `${path} has no install script`);
    t.ok(LICENCES.includes(license), `${path} has licence ${license}`);
    t.match(integrity, /^sha512-/, `${path} is held by its hash`);
    t.ok(!link && /^https:\/\/|^$/.test(resolved ?? ""), `${path} comes from the registry`);
  }
  t.end();
});

test("the package runs nothing at its own installation", (t) => {
  const { scripts } = json("package.json");
  for (const name of ["preinstall", "install", "postinstall", "preprepare", "prepare", "postprepare", "dependencies"])
    t.notOk(scripts[name], name);
  t.notOk(existsSync(`${ROOT}binding.gyp`), "which npm would build");
  t.end();
});
