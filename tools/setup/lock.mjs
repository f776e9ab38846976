import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const HEARTBEAT_MS = 2_000;
/** A holder that has not touched its lock for this long is taken for dead even if its process id is in use again. */
const STALE_AFTER_MS = 60_000;
const POLL_MS = 200;

/**
 * Runs `work` while holding the lock file, so that one process at a time does it.
 * @param onWait called once with the holder's process id when the lock is taken
 * @param maxWaitMs how long to wait for another holder before giving up
 */
export async function withLock(file, work, { onWait = () => {}, maxWaitMs = 30 * 60_000 } = {}) {
  mkdirSync(dirname(file), { recursive: true });
  const deadline = Date.now() + maxWaitMs;
  let told = false;
  while (!tryAcquire(file)) {
    const holder = readHolder(file);
    if (holder === undefined || (isStale(file, holder) && breakLock(file, holder))) continue;
    if (!told) onWait(holder.pid);
    told = true;
    if (Date.now() > deadline) {
      throw new Error(`process ${holder.pid} has held ${file} for ${maxWaitMs / 60_000} minutes; stop it and try again`);
    }
    await sleep(POLL_MS);
  }
  const heartbeat = setInterval(() => touch(file), HEARTBEAT_MS);
  const release = () => {
    clearInterval(heartbeat);
    if (readHolder(file)?.pid === process.pid) rmSync(file, { force: true });
  };
  process.once('exit', release);
  try {
    return await work();
  } finally {
    process.removeListener('exit', release);
    release();
  }
}

/** The content is complete before the name appears, so a reader never meets an empty lock. */
function tryAcquire(file) {
  const candidate = `${file}.${process.pid}`;
  writeFileSync(candidate, JSON.stringify({ pid: process.pid, since: Date.now() }));
  try {
    linkSync(candidate, file);
    return true;
  } catch (error) {
    if (error.code === 'EEXIST') return false;
    throw error;
  } finally {
    rmSync(candidate, { force: true });
  }
}

function readHolder(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  }
}

function isStale(file, holder) {
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    if (error.code === 'ESRCH') return true;
  }
  try {
    return Date.now() - statSync(file).mtimeMs > STALE_AFTER_MS;
  } catch {
    return false;
  }
}

/** Takes a dead holder's lock away; puts it back when it turns out to be a newer one that another waiter just took. */
function breakLock(file, holder) {
  const aside = `${file}.broken.${process.pid}`;
  try {
    renameSync(file, aside);
  } catch {
    return false;
  }
  const taken = readHolder(aside);
  const same = taken?.pid === holder.pid && taken?.since === holder.since;
  if (!same) {
    try {
      linkSync(aside, file);
    } catch {
      // A third process got the lock in between; the owner of `aside` finds out by its own exclusive steps.
    }
  }
  rmSync(aside, { force: true });
  return same;
}

function touch(file) {
  try {
    const now = new Date();
    utimesSync(file, now, now);
  } catch {
    // The lock was taken away; the work goes on and the next run repairs what two runs may have disturbed.
  }
}
