import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { artifactRefSchema, type ArtifactRef } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import type { WrittenFolder } from './job-context';

/**
 * Fills a folder that appears under its name only when it is complete and on disk: `fill` writes into a sibling, which is then renamed.
 * Files must lie flat in it.
 * @throws what `fill` throws, after the half-written sibling is removed; TunefleetError `invariant` when the name is taken
 */
export async function writeFolder(dir: string, fill: (partialDir: string) => Promise<void>): Promise<WrittenFolder> {
  const partial = `${dir}.partial`;
  await rm(partial, { recursive: true, force: true });
  await mkdir(partial, { recursive: true });
  try {
    await fill(partial);
    const files = await describeFolder(partial);
    await syncFolder(partial);
    await rename(partial, dir);
    await syncFolder(dirname(dir));
    return { dir, files };
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw error;
  }
}

/** Name, hash and size of every file, sorted by name. */
export async function describeFolder(dir: string): Promise<ArtifactRef[]> {
  const files: ArtifactRef[] = [];
  for (const name of (await readdir(dir)).sort()) {
    const path = join(dir, name);
    const info = await stat(path);
    if (!info.isFile()) throw new TunefleetError('invariant', `${path} is not a plain file; artifacts lie flat in their folder`);
    files.push(artifactRefSchema.parse({ name, sha256: await hashFile(path), bytes: info.size }));
  }
  return files;
}

/** Writes and forces to disk. */
export function writeDurably(path: string, data: string | Uint8Array): Promise<void> {
  return writeFile(path, data, { flush: true });
}

async function hashFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

async function syncFolder(dir: string): Promise<void> {
  const handle = await open(dir, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
