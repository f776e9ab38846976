import { createHash } from 'node:crypto';
import { mkdir, open, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { TunefleetError } from '@tunefleet/foundation';
import type { BlobInfo, BlobStore, BlobSweep } from '@tunefleet/ports';
import { blobPath, requireSha256 } from './blob-path';
import { PartFiles } from './part-files';
import { listBlobs, removeUntouched } from './sweep';

type PutOptions = Parameters<BlobStore['put']>[1];
type Range = NonNullable<Parameters<BlobStore['open']>[1]>;

/**
 * Blobs as files of a folder, which several processes (and machines, on a shared file system) may use at once.
 * A blob appears by a rename, when its bytes are on disk: a crash at any moment leaves whole blobs only.
 * @param root created when absent
 */
export async function openBlobsFs(root: string): Promise<BlobStore & BlobSweep> {
  const folder = resolve(root);
  const parts = new PartFiles(folder);
  await translated(() => parts.prepare());
  return {
    put: (source, options) => translated(() => put(folder, parts, source, options)),
    open: (sha256, range) => translated(() => openRange(blobPath(folder, sha256), sha256, range)),
    stat: (sha256) => translated(() => statBlob(blobPath(folder, sha256), sha256)),
    delete: (sha256) => translated(() => rm(blobPath(folder, sha256), { force: true })),
    ping: () => translated(() => ping(parts)),
    list: () => listBlobs(folder),
    removeUntouched: (sha256, sinceMs) => translated(() => removeUntouched(folder, parts, sha256, sinceMs)),
  };
}

async function put(folder: string, parts: PartFiles, source: AsyncIterable<Uint8Array>, options: PutOptions): Promise<BlobInfo> {
  const { maxBytes, expected } = options;
  if (expected?.sha256 !== undefined) requireSha256(expected.sha256);
  const partPath = parts.newPath();
  try {
    const info = await writePart(partPath, source, Math.min(maxBytes, expected?.bytes ?? maxBytes));
    requireExpected(info, expected);
    // Also over a blob that is there already: the same bytes, and one damaged on disk is whole again.
    await publish(folder, partPath, info.sha256);
    return info;
  } catch (error) {
    await rm(partPath, { force: true });
    throw error;
  }
}

/** The bytes are on disk when this resolves. */
async function writePart(path: string, source: AsyncIterable<Uint8Array>, maxBytes: number): Promise<BlobInfo> {
  const hash = createHash('sha256');
  let bytes = 0;
  const measured = async function* (): AsyncGenerator<Uint8Array> {
    try {
      for await (const chunk of source) {
        bytes += chunk.byteLength;
        if (bytes > maxBytes) throw new TunefleetError('invalid_input', `more than ${maxBytes} bytes came; no more were announced or allowed`, { reason: 'too_large' });
        hash.update(chunk);
        yield chunk;
      }
    } catch (error) {
      throw new SourceFailure(error);
    }
  };
  const file = await open(path, 'wx');
  try {
    await writeFile(file, measured());
    await file.sync();
  } finally {
    await file.close();
  }
  return { sha256: hash.digest('hex'), bytes };
}

function requireExpected(info: BlobInfo, expected: Partial<BlobInfo> | undefined): void {
  if (expected?.bytes !== undefined && expected.bytes !== info.bytes) {
    throw new TunefleetError('invalid_input', `${info.bytes} bytes came, ${expected.bytes} were announced; send all of them`, { reason: 'size_mismatch' });
  }
  if (expected?.sha256 !== undefined && expected.sha256 !== info.sha256) {
    throw new TunefleetError('invalid_input', `the bytes have SHA-256 ${info.sha256}, announced was ${expected.sha256}; they were changed on the way`, { reason: 'hash_mismatch' });
  }
}

async function publish(root: string, partPath: string, sha256: string): Promise<void> {
  const path = blobPath(root, sha256);
  const leaf = dirname(path);
  await mkdir(leaf, { recursive: true });
  await rename(partPath, path);
  // A rename outlives a power cut once its folder is on disk, and that one's name in its parent.
  for (const folder of [leaf, dirname(leaf), root]) await syncFolder(folder);
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

async function openRange(path: string, sha256: string, range: Range | undefined): Promise<Readable> {
  const file = await open(path, 'r').catch((error: unknown) => {
    throw isErrno(error, 'ENOENT') ? new TunefleetError('not_found', `no blob ${sha256}`, { cause: error }) : error;
  });
  try {
    const { size } = await file.stat();
    const { start, end } = rangeWithin(size, range);
    if (end > start) return file.createReadStream({ start, end: end - 1 });
  } catch (error) {
    await file.close();
    throw error;
  }
  await file.close();
  return Readable.from([]);
}

/** `end` is exclusive. A length beyond the blob's end gives what is there. */
function rangeWithin(size: number, range: Range | undefined): { start: number; end: number } {
  const start = range?.offset ?? 0;
  const length = range?.length ?? Math.max(0, size - start);
  if (!Number.isSafeInteger(start) || start < 0 || start > size) throw new TunefleetError('invalid_input', `offset ${start} is outside of the blob's ${size} bytes`, { param: 'offset' });
  if (!Number.isSafeInteger(length) || length < 0) throw new TunefleetError('invalid_input', `length ${length} is not a number of bytes`, { param: 'length' });
  return { start, end: Math.min(size, start + length) };
}

async function statBlob(path: string, sha256: string): Promise<BlobInfo | null> {
  try {
    const info = await stat(path);
    return { sha256, bytes: info.size };
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return null;
    throw error;
  }
}

/** A folder that cannot be written, or is full, shows here rather than in the next upload. */
async function ping(parts: PartFiles): Promise<void> {
  const path = parts.newPath();
  try {
    await writeFile(path, 'ping', { flag: 'wx' });
  } finally {
    await rm(path, { force: true });
  }
}

/** The error as Node's file system throws it, or null. By its fields: `instanceof` fails across realms. */
function fileSystemError(error: unknown): NodeJS.ErrnoException | null {
  return typeof error === 'object' && error !== null && 'syscall' in error ? (error as NodeJS.ErrnoException) : null;
}

function isErrno(error: unknown, code: string): boolean {
  return fileSystemError(error)?.code === code;
}

/** Keeps what the source of a put threw apart from errors of the file system. */
class SourceFailure {
  constructor(readonly error: unknown) {}
}

/** Errors of the file system become ours; those of the source of a put pass as they are. */
async function translated<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof SourceFailure) throw error.error;
    const failure = fileSystemError(error);
    if (failure === null) throw error;
    const isFull = failure.code === 'ENOSPC' || failure.code === 'EDQUOT';
    const what = isFull ? 'the disk of the blob store is full; free some space, then try again' : `the blob store cannot be used: ${failure.message}. Check the data folder and its permissions`;
    throw new TunefleetError('unavailable', what, { cause: error, reason: isFull ? 'disk_full' : 'blob_store_unusable' });
  }
}
