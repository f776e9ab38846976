import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { AdapterView } from '@tunefleet/contracts';
import type { TunefleetClient } from '@tunefleet/client-sdk';
import { TunefleetError } from '@tunefleet/foundation';
import { saveStream } from './save-stream';

/**
 * Downloads an adapter's folder to `dir`, every file checked against its hash. The folder appears at once and whole; one that holds
 * the same files already is left as it is, any other is not touched.
 * @throws conflict when `dir` holds something else, incompatible_artifact on a wrong hash
 */
export async function pullAdapter(client: TunefleetClient, adapter: AdapterView, dir: string, signal: AbortSignal): Promise<void> {
  const present = await readdir(dir).catch(() => null);
  if (present !== null && present.length > 0) {
    if (await holds(dir, present, adapter)) return;
    throw new TunefleetError('conflict', `${dir} is there already and holds other files: remove it, or name another folder`);
  }
  const partial = join(dirname(dir), `.${basename(dir)}.${process.pid}.partial`);
  await rm(partial, { recursive: true, force: true });
  await mkdir(partial, { recursive: true });
  try {
    for (const file of adapter.files) {
      signal.throwIfAborted();
      await saveStream(await client.adapters.file(adapter.id, file.name, { signal }), join(partial, file.name), file.sha256);
    }
    // An empty folder may be replaced; anything that came meanwhile makes this fail.
    await rename(partial, dir);
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw error;
  }
}

async function holds(dir: string, present: readonly string[], adapter: AdapterView): Promise<boolean> {
  if (present.length !== adapter.files.length) return false;
  for (const file of adapter.files) {
    if (!present.includes(file.name)) return false;
    const hash = createHash('sha256');
    await pipeline(createReadStream(join(dir, file.name)), hash);
    if (hash.digest('hex') !== file.sha256) return false;
  }
  return true;
}
