import { createHash, randomUUID } from 'node:crypto';
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { TOKENS_MAX, type PackedTokens } from './token-pool';

const MAGIC = 'TUNETOK1';
const PREFIX_BYTES = 16;
const HEADER_BYTES_MAX = 4096;

const headerSchema = z.object({
  fingerprint: z.string(),
  examples: z.int().min(0).max(TOKENS_MAX),
  tokens: z.int().min(0).max(TOKENS_MAX),
  truncated: z.int().min(0),
  sha256: z.string(),
});

export interface CachedTokens {
  readonly packed: PackedTokens;
  readonly truncated: number;
}

/**
 * Token files by fingerprint. Layout: magic, header length (u32 LE, padded to 16 bytes), JSON header padded to a multiple of 8, then lengths and ids
 * (int32 LE) and the loss mask (u8). A file that is damaged in any way counts as absent.
 */
export class TokenCache {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  async read(fingerprint: string): Promise<CachedTokens | null> {
    try {
      return decode(await readFile(this.#path(fingerprint)), fingerprint);
    } catch {
      return null;
    }
  }

  async write(fingerprint: string, { packed, truncated }: CachedTokens): Promise<void> {
    await mkdir(this.#directory, { recursive: true });
    const partial = `${this.#path(fingerprint)}.${randomUUID()}.partial`;
    const parts = [packed.lengths, packed.ids, packed.learned].map(bytesOf);
    const json = JSON.stringify({ fingerprint, examples: packed.lengths.length, tokens: packed.ids.length, truncated, sha256: digest(parts) });
    const header = Buffer.alloc(PREFIX_BYTES + Math.ceil(json.length / 8) * 8, 0x20);
    header.fill(0, 0, PREFIX_BYTES);
    header.write(MAGIC, 0, 'latin1');
    header.writeUInt32LE(header.length - PREFIX_BYTES, 8);
    header.write(json, PREFIX_BYTES, 'utf8');
    const handle = await open(partial, 'wx');
    try {
      for (const part of [header, ...parts]) await handle.writeFile(part);
      await handle.close();
      await rename(partial, this.#path(fingerprint));
    } catch (error) {
      await handle.close().catch(() => undefined);
      await rm(partial, { force: true });
      throw error;
    }
  }

  #path(fingerprint: string): string {
    return join(this.#directory, `${fingerprint}.tokens`);
  }
}

function decode(file: Buffer, fingerprint: string): CachedTokens | null {
  const headerBytes = file.readUInt32LE(8);
  if (file.toString('latin1', 0, 8) !== MAGIC || headerBytes > HEADER_BYTES_MAX) return null;
  const start = PREFIX_BYTES + headerBytes;
  const header = headerSchema.parse(JSON.parse(file.toString('utf8', PREFIX_BYTES, start)));
  const { examples, tokens } = header;
  if (header.fingerprint !== fingerprint || file.length !== start + examples * 4 + tokens * 5) return null;
  // A copy, because a Buffer's offset need not be aligned for Int32Array.
  const body = file.buffer.slice(file.byteOffset + start, file.byteOffset + file.length) as ArrayBuffer;
  const packed: PackedTokens = { lengths: new Int32Array(body, 0, examples), ids: new Int32Array(body, examples * 4, tokens), learned: new Uint8Array(body, (examples + tokens) * 4, tokens) };
  const whole = packed.lengths.reduce((sum, length) => sum + length, 0) === tokens;
  return whole && digest([new Uint8Array(body)]) === header.sha256 ? { packed, truncated: header.truncated } : null;
}

function bytesOf(array: Int32Array | Uint8Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function digest(parts: readonly Uint8Array[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
}
