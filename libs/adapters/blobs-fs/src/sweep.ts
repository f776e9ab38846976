import { readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { StoredBlob } from '@tunefleet/ports';
import { blobPath, isSha256 } from './blob-path';
import type { PartFiles } from './part-files';

const LEVEL = /^[0-9a-f]{2}$/;

export async function* listBlobs(root: string): AsyncGenerator<StoredBlob> {
  for (const first of await names(root)) {
    if (!LEVEL.test(first)) continue;
    for (const second of await names(join(root, first))) {
      if (!LEVEL.test(second)) continue;
      for (const sha256 of await names(join(root, first, second))) {
        const info = isSha256(sha256) ? await stat(join(root, first, second, sha256)).catch(() => null) : null;
        if (info !== null) yield { sha256, bytes: info.size, storedAtMs: info.mtimeMs };
      }
    }
  }
}

/**
 * Moves it aside first: a put before that shows in its time, and it is moved back; one after that finds no blob in its way. So none is lost between
 * the look and the removal. While it is moved back, a reader may miss it for a moment.
 */
export async function removeUntouched(root: string, parts: PartFiles, sha256: string, sinceMs: number): Promise<boolean> {
  const path = blobPath(root, sha256);
  const aside = parts.newPath();
  try {
    if ((await stat(path)).mtimeMs >= sinceMs) return false;
    await rename(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
  if ((await stat(aside)).mtimeMs >= sinceMs) {
    await rename(aside, path);
    return false;
  }
  await rm(aside);
  return true;
}

async function names(folder: string): Promise<string[]> {
  return readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return [];
    throw error;
  });
}
