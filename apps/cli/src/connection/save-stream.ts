import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { TunefleetError } from '@tunefleet/foundation';

export type ByteStream = ReadableStream<Uint8Array>;

/**
 * Writes a stream to `path`, or to standard output without one. The file appears under its name only once it is whole: a cut-off
 * download leaves nothing behind.
 * @param sha256 lower-case hexadecimal; content with another hash is refused
 * @throws incompatible_artifact on another hash
 */
export async function saveStream(stream: ByteStream, path: string | undefined, sha256?: string): Promise<void> {
  const source = Readable.fromWeb(stream as Parameters<typeof Readable.fromWeb>[0]);
  if (path === undefined) {
    await pipeline(source, process.stdout, { end: false });
    return;
  }
  const partial = join(dirname(path), `.${basename(path)}.${process.pid}.partial`);
  await mkdir(dirname(path), { recursive: true });
  try {
    const hash = createHash('sha256');
    const hashing = new Transform({
      transform: (chunk: Uint8Array, _encoding, done) => {
        hash.update(chunk);
        done(null, chunk);
      },
    });
    await pipeline(source, hashing, createWriteStream(partial));
    const actual = hash.digest('hex');
    if (sha256 !== undefined && actual !== sha256) {
      throw new TunefleetError('incompatible_artifact', `${basename(path)} arrived with SHA-256 ${actual}, expected ${sha256}: try again`);
    }
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}
