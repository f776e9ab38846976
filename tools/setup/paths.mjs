import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository's top folder. */
export const root = resolve(dirname(fileURLToPath(import.meta.url)), '..', '..');

/** Where finished steps leave their fingerprints; goes away with `node_modules`, and so do the results it vouches for. */
export const stampDir = join(root, 'node_modules', '.cache', 'tunefleet');

/** Outside `node_modules`, which `npm ci` deletes while the lock is held. */
export const lockFile = join(root, '.tunefleet', 'setup.lock');

/** Downloads and compiled code shared by all checkouts of this user. */
export function cacheDir(env = process.env) {
  if (env.TUNEFLEET_CACHE_DIR) return resolve(env.TUNEFLEET_CACHE_DIR);
  return join(env.XDG_CACHE_HOME ? resolve(env.XDG_CACHE_HOME) : join(homedir(), '.cache'), 'tunefleet');
}
