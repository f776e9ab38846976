import { spawnSync } from 'node:child_process';
import { lstat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { TunefleetError } from '@tunefleet/foundation';

/** The account the server runs under. PostgreSQL refuses to run as root. */
export interface ServerAccount {
  readonly uid: number;
  readonly gid: number;
}

/**
 * Null: run as who we are. As root: the account `postgres`, made when missing, or `nobody` where accounts cannot be made.
 * @throws unavailable when there is no account at all
 */
export function serverAccount(): ServerAccount | null {
  if (process.getuid?.() !== 0) return null;
  const existing = lookUp('postgres');
  if (existing) return existing;
  spawnSync('useradd', ['--system', '--user-group', '--no-create-home', '--shell', '/usr/sbin/nologin', 'postgres'], { stdio: 'ignore' });
  const account = lookUp('postgres') ?? lookUp('nobody');
  if (account) return account;
  throw new TunefleetError(
    'unavailable',
    'PostgreSQL refuses to run as root and there is no account to run it under: create a user named postgres, or set DATABASE_URL',
  );
}

function lookUp(name: string): ServerAccount | null {
  const [uid, gid] = ['-u', '-g'].map((flag) => {
    const answer = spawnSync('id', [flag, name], { encoding: 'utf8' });
    return answer.status === 0 ? Number.parseInt(answer.stdout, 10) : Number.NaN;
  });
  return uid === undefined || gid === undefined || Number.isNaN(uid) || Number.isNaN(gid) ? null : { uid, gid };
}

/** Whether the account may walk down to `path`: every folder above it must let it through. */
export async function canReach(account: ServerAccount, path: string): Promise<boolean> {
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    const { mode, uid, gid } = await lstat(folder);
    const bit = uid === account.uid ? 0o100 : gid === account.gid ? 0o010 : 0o001;
    if ((mode & bit) === 0) return false;
    if (folder === dirname(folder)) return true;
  }
}
