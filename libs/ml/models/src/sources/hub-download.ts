import { createHash } from 'node:crypto';
import { createReadStream, existsSync, statSync } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { TunefleetError, backoffDelayMs, errorCode, sleep } from '@tunefleet/foundation';
import { anySignal, type HubClient, type HubFile } from './hub-client';

/** A transfer that brings no byte for this long is broken off and resumed. */
const STALL_MS = 60_000;
/** Tries without a single new byte before giving up. */
const FRUITLESS_TRIES_MAX = 4;
const BACKOFF = { firstMs: 500, factor: 2, maxMs: 8_000 };

export interface DownloadTarget {
  readonly id: string;
  readonly commit: string;
  readonly folder: string;
}

export interface DownloadOptions {
  /** Called with the bytes of this file that are on disk. */
  readonly onBytes?: (bytes: number) => void;
  readonly signal?: AbortSignal | undefined;
  readonly backoff?: typeof BACKOFF;
}

/**
 * Fetches one file into the folder, going on where an earlier try stopped, and proves its content. A partial file is named after the digest,
 * so bytes of different versions never mix.
 * @throws TunefleetError `unavailable` when transfers keep failing, `incompatible_artifact` when the content is not what the hub promised
 */
export async function downloadFile(client: HubClient, { id, commit, folder }: DownloadTarget, file: HubFile, options: DownloadOptions = {}): Promise<void> {
  const target = join(folder, file.path);
  if (existsSync(target)) return options.onBytes?.(file.bytes);
  const partial = join(folder, `.${file.path}.${file.digest.hex.slice(0, 16)}.part`);
  let fruitless = 0;
  while (sizeOf(partial) < file.bytes || !existsSync(partial)) {
    const before = sizeOf(partial);
    try {
      await transfer(client, { id, commit, folder }, file, partial, options);
      if (sizeOf(partial) < file.bytes) throw new TunefleetError('unavailable', `${client.endpoint} ended ${file.path} after ${sizeOf(partial)} of ${file.bytes} bytes`, { reason: 'hub_unreachable' });
    } catch (error) {
      if (errorCode(error) !== undefined && errorCode(error) !== 'unavailable') throw error;
      if (options.signal?.aborted) throw new TunefleetError('cancelled', `the download of ${id} was cancelled`);
      fruitless = sizeOf(partial) > before ? 0 : fruitless + 1;
      if (fruitless >= FRUITLESS_TRIES_MAX) throw new TunefleetError('unavailable', `${file.path} of ${id} could not be fetched: ${sizeOf(partial)} of ${file.bytes} bytes after ${fruitless} tries without progress; try again later, the bytes so far are kept`, { reason: 'hub_unreachable', cause: error });
      await sleep(backoffDelayMs(options.backoff ?? BACKOFF, fruitless + 1), options.signal);
    }
  }
  const actual = await digestOf(partial, file);
  if (sizeOf(partial) !== file.bytes || actual !== file.digest.hex) {
    await rm(partial, { force: true });
    throw new TunefleetError('incompatible_artifact', `${file.path} of ${id} arrived damaged: ${file.digest.algorithm} ${actual} instead of ${file.digest.hex}; it was deleted, start again`, { reason: 'hash_mismatch' });
  }
  await rename(partial, target);
}

async function transfer(client: HubClient, { id, commit }: DownloadTarget, file: HubFile, partial: string, { onBytes, signal }: DownloadOptions): Promise<void> {
  const stall = new AbortController();
  let timer = setTimeout(() => stall.abort(), STALL_MS);
  const handle = await open(partial, existsSync(partial) ? 'r+' : 'w+');
  try {
    const { body, start } = await client.open(id, commit, file.path, sizeOf(partial), anySignal(signal, stall.signal));
    await handle.truncate(start);
    let position = start;
    for await (const chunk of body) {
      clearTimeout(timer);
      timer = setTimeout(() => stall.abort(), STALL_MS);
      if (position + chunk.length > file.bytes) throw new TunefleetError('incompatible_artifact', `${file.path} of ${id} is longer than the ${file.bytes} bytes the hub promised`, { reason: 'hash_mismatch' });
      for (let done = 0; done < chunk.length; ) done += (await handle.write(chunk, done, chunk.length - done, position + done)).bytesWritten;
      position += chunk.length;
      onBytes?.(position);
    }
    await handle.sync();
  } finally {
    clearTimeout(timer);
    await handle.close();
  }
}

async function digestOf(path: string, { digest, bytes }: HubFile): Promise<string> {
  const hash = createHash(digest.algorithm === 'sha256' ? 'sha256' : 'sha1');
  if (digest.algorithm === 'git-sha1') hash.update(`blob ${bytes}\0`);
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

function sizeOf(path: string): number {
  return existsSync(path) ? statSync(path).size : 0;
}
