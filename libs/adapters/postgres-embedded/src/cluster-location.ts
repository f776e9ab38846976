import { randomBytes } from 'node:crypto';
import { chown, cp, mkdir, readFile, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { canReach, type ServerAccount } from './account';
import { binariesIn, type PostgresBinaries } from './binaries';

/** Where the server's files live once everything is readable for the account that runs it. */
export interface ClusterLocation {
  readonly clusterDir: string;
  readonly binaries: PostgresBinaries;
}

/** Used only as root, when the account of the server cannot walk down to the data folder or the installed packages. */
const SHARED_ROOT = '/var/lib/tunefleet';
const LOCATION_FILE = 'cluster-location';
const ORIGIN_FILE = 'origin';

/**
 * The cluster lives in `<dataDir>/cluster`, unless we are root under folders closed to others (`/root`, a `mktemp -d`):
 * opening those would be a change of the machine's security nobody asked for, so cluster and binaries go to
 * `/var/lib/tunefleet` instead and `<dataDir>/cluster-location` says where. Such a cluster dies with its data folder:
 * the next start of any other one removes it.
 */
export async function locateCluster(dataDir: string, binaries: PostgresBinaries, account: ServerAccount | null): Promise<ClusterLocation> {
  if (account === null) return { clusterDir: join(dataDir, 'cluster'), binaries };
  const clusterDir = (await canReach(account, join(dataDir, 'cluster')))
    ? join(dataDir, 'cluster')
    : await relocatedCluster(dataDir);
  const reachable = await canReach(account, binaries.postgres);
  return { clusterDir, binaries: reachable ? binaries : await copyBinaries(binaries) };
}

async function relocatedCluster(dataDir: string): Promise<string> {
  await mkdir(SHARED_ROOT, { recursive: true, mode: 0o755 });
  await removeOrphans();
  const locationFile = join(dataDir, LOCATION_FILE);
  const known = await readFile(locationFile, 'utf8').catch(() => null);
  if (known !== null && (await stat(known).catch(() => null)) !== null) return join(known, 'cluster');
  const home = join(SHARED_ROOT, `postgres-${randomBytes(8).toString('hex')}`);
  await mkdir(home, { mode: 0o711 });
  await writeFile(join(home, ORIGIN_FILE), locationFile, { mode: 0o600 });
  await writeFile(locationFile, home, { mode: 0o600 });
  return join(home, 'cluster');
}

/** Removes clusters whose data folder is gone or has moved on to another cluster. */
async function removeOrphans(): Promise<void> {
  for (const entry of await readdir(SHARED_ROOT)) {
    const home = join(SHARED_ROOT, entry);
    const origin = await readFile(join(home, ORIGIN_FILE), 'utf8').catch(() => null);
    if (origin === null) continue;
    const pointsTo = await readFile(origin, 'utf8').catch(() => null);
    const running = await stat(join(home, 'cluster', 'postmaster.pid')).catch(() => null);
    if (pointsTo !== home && running === null) await rm(home, { recursive: true, force: true });
  }
}

async function copyBinaries(binaries: PostgresBinaries): Promise<PostgresBinaries> {
  const version = (JSON.parse(await readFile(join(binaries.root, '..', 'package.json'), 'utf8')) as { version: string }).version;
  const target = join(SHARED_ROOT, `postgres-binaries-${version}`);
  if ((await stat(target).catch(() => null)) === null) {
    await mkdir(SHARED_ROOT, { recursive: true, mode: 0o755 });
    const partial = `${target}.${randomBytes(4).toString('hex')}.partial`;
    await cp(binaries.root, partial, { recursive: true, verbatimSymlinks: true });
    // Another process may have been first; its copy is as good.
    await rename(partial, target).catch(() => rm(partial, { recursive: true, force: true }));
  }
  return binariesIn(target);
}

/** Makes a folder that belongs to the server's account and to nobody else. */
export async function makeOwned(folder: string, account: ServerAccount | null): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  if (account) await chown(folder, account.uid, account.gid);
}
