import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chown, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { TunefleetError } from '@tunefleet/foundation';
import type { ServerAccount } from './account';
import { makeOwned, type ClusterLocation } from './cluster-location';

export const SUPERUSER = 'tunefleet';
const PASSWORD_FILE = 'password';
const INITDB_TIMEOUT_MS = 120_000;

/**
 * Makes the cluster unless it is there, in a folder beside it that is renamed when complete: a crash half-way leaves
 * nothing that looks like a cluster.
 * @returns the superuser's password, kept in `<dataDir>/password` (mode 0600)
 */
export async function initialiseCluster(dataDir: string, location: ClusterLocation, account: ServerAccount | null, sync: boolean): Promise<string> {
  const passwordFile = join(dataDir, PASSWORD_FILE);
  const known = await readFile(passwordFile, 'utf8').catch(() => null);
  if ((await stat(join(location.clusterDir, 'PG_VERSION')).catch(() => null)) !== null) {
    if (known !== null) return known.trim();
    throw new TunefleetError('unavailable', `the database in ${location.clusterDir} has lost its password file ${passwordFile}: restore it, or remove the folder to start empty`);
  }
  const password = randomBytes(24).toString('base64url');
  const partial = `${location.clusterDir}.partial`;
  await rm(partial, { recursive: true, force: true });
  await makeOwned(partial, account);
  const passwordForInitdb = join(dirname(location.clusterDir), 'initdb-password');
  try {
    await writeFile(passwordForInitdb, password, { mode: 0o600 });
    if (account) await chown(passwordForInitdb, account.uid, account.gid);
    await runInitdb(location, partial, passwordForInitdb, account, sync);
  } finally {
    await rm(passwordForInitdb, { force: true });
  }
  // The password goes first: a cluster without one would be lost, a password without a cluster is just overwritten.
  await writeFile(passwordFile, password, { mode: 0o600 });
  await rename(partial, location.clusterDir);
  return password;
}

async function runInitdb(location: ClusterLocation, clusterDir: string, passwordFile: string, account: ServerAccount | null, sync: boolean): Promise<void> {
  const flags = [
    `--pgdata=${clusterDir}`,
    `--username=${SUPERUSER}`,
    `--pwfile=${passwordFile}`,
    '--auth=scram-sha-256',
    '--encoding=UTF8',
    // The built-in locale sorts the same on every machine and survives upgrades of the system's C library.
    '--locale=C',
    '--locale-provider=builtin',
    '--builtin-locale=C.UTF-8',
    ...(sync ? [] : ['--no-sync']),
  ];
  let output = '';
  const code = await new Promise<number | null>((resolve, reject) => {
    const child = spawn(location.binaries.initdb, flags, {
      ...(account ?? {}),
      cwd: dirname(clusterDir),
      env: { PATH: process.env['PATH'], LC_ALL: 'C', TZ: 'UTC' },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: INITDB_TIMEOUT_MS,
    });
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString('utf8')));
    child.on('error', reject);
    child.on('close', resolve);
  });
  if (code !== 0) {
    throw new TunefleetError('unavailable', `could not create the database in ${clusterDir}: initdb ended with ${code ?? 'a signal'}: ${output.trim().slice(-1500)}`);
  }
}
