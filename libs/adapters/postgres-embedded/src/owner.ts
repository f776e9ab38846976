import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isAlive } from './postmaster';

const OWNER_FILE = 'owner.pid';

/**
 * The process that answers for stopping the server. A process that finds the server running takes it over only when the
 * owner is gone (killed); otherwise it is a guest and leaves the server alone.
 * @returns true when this process owns the server now
 */
export async function takeOwnership(dataDir: string): Promise<boolean> {
  const file = join(dataDir, OWNER_FILE);
  const owner = Number.parseInt(await readFile(file, 'utf8').catch(() => ''), 10);
  if (!Number.isNaN(owner) && owner !== process.pid && isAlive(owner)) return false;
  await writeFile(file, String(process.pid), { mode: 0o600 });
  return true;
}

export async function giveUpOwnership(dataDir: string): Promise<void> {
  await rm(join(dataDir, OWNER_FILE), { force: true });
}
