import { createWriteStream } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { createInflateRaw } from 'node:zlib';
import { TunefleetError } from '@tunefleet/foundation';

const END_RECORD = 0x06054b50;
const DIRECTORY_ENTRY = 0x02014b50;
const DIRECTORY_BYTES_MAX = 64 * 1024 * 1024;

interface ZipEntry {
  readonly method: number;
  readonly compressedBytes: number;
  readonly bytes: number;
  readonly headerOffset: number;
}

/**
 * Writes one file of a zip archive (a Python wheel is one) to `target`. Archives over 4 GiB are not supported.
 * @throws TunefleetError `incompatible_artifact` when the archive is damaged or has no such file
 */
export async function extractZipEntry(archive: string, name: string, target: string): Promise<void> {
  const handle = await open(archive, 'r');
  try {
    const entry = await findEntry(handle, archive, name);
    const local = await readAt(handle, entry.headerOffset, 30, archive);
    const start = entry.headerOffset + 30 + local.readUInt16LE(26) + local.readUInt16LE(28);
    const source = handle.createReadStream({ start, end: start + entry.compressedBytes - 1, autoClose: false, highWaterMark: 1 << 20 });
    const sink = createWriteStream(target);
    if (entry.method === 0) await pipeline(source, sink);
    else if (entry.method === 8) await pipeline(source, createInflateRaw(), sink);
    else throw damaged(archive, `compresses ${name} by method ${entry.method}, which is not supported`);
    if (sink.bytesWritten !== entry.bytes) throw damaged(archive, `gave ${sink.bytesWritten} of ${entry.bytes} bytes of ${name}`);
  } finally {
    await handle.close();
  }
}

async function findEntry(handle: FileHandle, archive: string, name: string): Promise<ZipEntry> {
  const { size } = await handle.stat();
  const tailBytes = Math.min(size, 65_557);
  const tail = await readAt(handle, size - tailBytes, tailBytes, archive);
  let at = tail.length - 22;
  while (at >= 0 && tail.readUInt32LE(at) !== END_RECORD) at -= 1;
  if (at < 0) throw damaged(archive, 'is not a zip archive');
  const directoryBytes = tail.readUInt32LE(at + 12);
  if (directoryBytes > DIRECTORY_BYTES_MAX) throw damaged(archive, `has a directory of ${directoryBytes} bytes`);
  const directory = await readAt(handle, tail.readUInt32LE(at + 16), directoryBytes, archive);
  for (let position = 0; position + 46 <= directory.length && directory.readUInt32LE(position) === DIRECTORY_ENTRY; ) {
    const nameBytes = directory.readUInt16LE(position + 28);
    if (directory.toString('utf8', position + 46, position + 46 + nameBytes) === name) {
      return {
        method: directory.readUInt16LE(position + 10),
        compressedBytes: directory.readUInt32LE(position + 20),
        bytes: directory.readUInt32LE(position + 24),
        headerOffset: directory.readUInt32LE(position + 42),
      };
    }
    position += 46 + nameBytes + directory.readUInt16LE(position + 30) + directory.readUInt16LE(position + 32);
  }
  throw damaged(archive, `has no file ${name}`);
}

async function readAt(handle: FileHandle, position: number, bytes: number, archive: string): Promise<Buffer> {
  const buffer = Buffer.alloc(bytes);
  const { bytesRead } = await handle.read(buffer, 0, bytes, position);
  if (bytesRead !== bytes) throw damaged(archive, `ends early at byte ${position + bytesRead}`);
  return buffer;
}

function damaged(archive: string, what: string): TunefleetError {
  return new TunefleetError('incompatible_artifact', `${archive} ${what}`, { reason: 'damaged_archive' });
}
