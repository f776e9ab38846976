import { randomUUID } from 'node:crypto';
import { readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { TunefleetError, sleep } from '@tunefleet/foundation';

export interface LockOptions {
  /** A lock whose file was not touched for this long belongs to a dead holder. Default 30 s. */
  readonly staleMs?: number;
  /** Time between looks while waiting. Default 200 ms. */
  readonly pollMs?: number;
  /** Give up after this long. Default 2 hours: the other process may be downloading. */
  readonly waitMs?: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Runs `work` while holding a lock file, across processes and (on shared disks) machines. The holder touches the file; a lock that is not touched,
 * or whose process is gone from this machine, is taken over.
 * @throws TunefleetError `unavailable` when the lock is not free within `waitMs`, `cancelled` when the signal aborts while waiting
 */
export async function withFolderLock<T>(path: string, options: LockOptions, work: () => Promise<T>): Promise<T> {
  const { staleMs = 30_000 } = options;
  const content = JSON.stringify({ host: hostname(), pid: process.pid, token: randomUUID() });
  await acquire(path, content, options);
  const beat = setInterval(() => void touch(path), staleMs / 5);
  beat.unref();
  try {
    return await work();
  } finally {
    clearInterval(beat);
    if ((await readLock(path)) === content) await rm(path, { force: true });
  }
}

async function acquire(path: string, content: string, { staleMs = 30_000, pollMs = 200, waitMs = 7_200_000, signal }: LockOptions): Promise<void> {
  const deadline = performance.now() + waitMs;
  for (;;) {
    if (await create(path, content)) return;
    await removeIfStale(path, staleMs);
    if (performance.now() > deadline) throw new TunefleetError('unavailable', `another process has held ${path} for ${Math.round(waitMs / 1000)} s; stop it, or delete the file if no such process exists`);
    await sleep(pollMs, signal);
    if (signal?.aborted) throw new TunefleetError('cancelled', 'cancelled while waiting for another process that prepares the same model');
  }
}

async function create(path: string, content: string): Promise<boolean> {
  try {
    await writeFile(path, content, { flag: 'wx' });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** Moves a stale lock aside before deleting it, and puts it back if a new holder slipped in between the look and the move. */
async function removeIfStale(path: string, staleMs: number): Promise<void> {
  const seen = await readLock(path);
  if (seen === null || !(await isStale(path, seen, staleMs))) return;
  const aside = `${path}.${randomUUID()}`;
  try {
    await rename(path, aside);
  } catch {
    return; // someone else was faster
  }
  const taken = await readLock(aside);
  if (taken !== null && taken !== seen && (await create(path, taken))) await touch(path);
  await rm(aside, { force: true });
}

async function isStale(path: string, content: string, staleMs: number): Promise<boolean> {
  try {
    const { mtimeMs } = await stat(path);
    if (Date.now() - mtimeMs > staleMs) return true;
    const holder = JSON.parse(content) as { host?: unknown; pid?: unknown };
    return holder.host === hostname() && typeof holder.pid === 'number' && !isAlive(holder.pid);
  } catch {
    return false; // gone, or just being written: look again later
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function readLock(path: string): Promise<string | null> {
  return readFile(path, 'utf8').catch(() => null);
}

async function touch(path: string): Promise<void> {
  const now = new Date();
  await utimes(path, now, now).catch(() => undefined);
}
