import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { newId } from '@tunefleet/foundation';

export interface WorkerIdentity {
  /** Stable: kept in the worker's folder. */
  readonly workerId: string;
  /** New at every start: a restarted agent cannot speak for its earlier life. */
  readonly bootId: string;
}

const ID_FILE = 'worker-id';

/** Reads the worker's id from its folder, or makes one there. */
export async function loadIdentity(workerDir: string): Promise<WorkerIdentity> {
  const file = join(workerDir, ID_FILE);
  const bootId = newId('worker').replace('wrk-', 'boot-');
  const known = await readFile(file, 'utf8').catch(() => '');
  if (/^wrk-[0-9a-z]{26}$/.test(known.trim())) return { workerId: known.trim(), bootId };
  const workerId = newId('worker');
  await mkdir(workerDir, { recursive: true });
  const unfinished = `${file}.${process.pid}`;
  await writeFile(unfinished, workerId);
  await rename(unfinished, file);
  return { workerId, bootId };
}
