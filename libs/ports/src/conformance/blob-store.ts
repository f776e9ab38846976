import { randomBytes } from 'node:crypto';
import { sha256Hex } from '@tunefleet/foundation';
import type { BlobStore } from '../blob-store';

/** What every BlobStore must do. Call at the top level of a spec file. @param open a store with no blobs in it, closed by the caller */
export function blobStoreConformance(name: string, open: () => Promise<BlobStore>): void {
  describe(`BlobStore: ${name}`, () => {
    let store: BlobStore;
    beforeEach(async () => {
      store = await open();
    });

    const put = (bytes: Uint8Array, options: Partial<Parameters<BlobStore['put']>[1]> = {}) => store.put(inChunks(bytes), { maxBytes: bytes.length, ...options });
    const read = async (sha256: string, range?: Parameters<BlobStore['open']>[1]): Promise<Buffer> => {
      const parts: Buffer[] = [];
      for await (const part of await store.open(sha256, range)) parts.push(Buffer.from(part as Uint8Array));
      return Buffer.concat(parts);
    };

    test.each([0, 1, 70_000, 1_000_003])('gives back the %i bytes it took, under their hash', async (size) => {
      const bytes = randomBytes(size);
      const info = await put(bytes, { expected: { sha256: sha256Hex(bytes), bytes: size } });
      expect(info).toEqual({ sha256: sha256Hex(bytes), bytes: size });
      expect(await store.stat(info.sha256)).toEqual(info);
      expect((await read(info.sha256)).equals(bytes)).toBe(true);
    });

    test('reads any range; one that goes beyond the end gives what is there', async () => {
      const bytes = randomBytes(200_000);
      const { sha256 } = await put(bytes);
      const ranges: [offset: number, length: number | undefined, end: number][] = [
        [0, 10, 10],
        [199_999, 1, 200_000],
        [65_535, 2, 65_537],
        [150_000, undefined, 200_000],
        [150_000, 90_000, 200_000],
        [7, 0, 7],
        [200_000, undefined, 200_000],
        [200_000, 5, 200_000],
      ];
      for (const [offset, length, end] of ranges) {
        const part = await read(sha256, { offset, ...(length === undefined ? {} : { length }) });
        expect(part.equals(bytes.subarray(offset, end))).toBe(true);
      }
    });

    test.each([{ offset: -1 }, { offset: 4 }, { offset: 0.5 }, { offset: Number.NaN }, { offset: 0, length: -1 }, { offset: 0, length: 0.5 }])('refuses the range %j of a blob of 3 bytes', async (range) => {
      const { sha256 } = await put(Buffer.from('abc'));
      await expect(store.open(sha256, range)).rejects.toMatchObject({ code: 'invalid_input' });
    });

    test.each([
      ['too_large', { maxBytes: 99 }],
      ['too_large', { expected: { bytes: 99 } }],
      ['size_mismatch', { maxBytes: 200, expected: { bytes: 101 } }],
      ['hash_mismatch', { expected: { sha256: sha256Hex('something else') } }],
    ])('refuses with %s and keeps nothing: %j', async (reason, options) => {
      const bytes = randomBytes(100);
      await expect(put(bytes, options)).rejects.toMatchObject({ code: 'invalid_input', reason });
      expect(await store.stat(sha256Hex(bytes))).toBeNull();
      expect(await store.stat(sha256Hex('something else'))).toBeNull();
    });

    test('a source that breaks off leaves nothing, and its own error comes out', async () => {
      const broken = async function* (): AsyncGenerator<Uint8Array> {
        yield Buffer.from('half');
        throw Object.assign(new Error('the peer went away'), { code: 'ECONNRESET', syscall: 'read' });
      };
      await expect(store.put(broken(), { maxBytes: 100 })).rejects.toMatchObject({ message: 'the peer went away', code: 'ECONNRESET' });
      expect(await store.stat(sha256Hex('half'))).toBeNull();
    });

    test('a source is closed when its bytes are refused', async () => {
      let closed = false;
      const endless = async function* (): AsyncGenerator<Uint8Array> {
        try {
          for (;;) yield Buffer.alloc(1000);
        } finally {
          closed = true;
        }
      };
      await expect(store.put(endless(), { maxBytes: 10_000 })).rejects.toMatchObject({ reason: 'too_large' });
      expect(closed).toBe(true);
    });

    test('the same content put many times at once is there once and whole', async () => {
      const bytes = randomBytes(300_000);
      const infos = await Promise.all(Array.from({ length: 8 }, () => put(bytes)));
      expect(new Set(infos.map((info) => info.sha256))).toEqual(new Set([sha256Hex(bytes)]));
      expect((await read(sha256Hex(bytes))).equals(bytes)).toBe(true);
    });

    test('a reader keeps its bytes when the blob is written again or deleted meanwhile', async () => {
      const bytes = randomBytes(500_000);
      const { sha256 } = await put(bytes);
      const stream = await store.open(sha256);
      await put(bytes);
      await store.delete(sha256);
      const parts: Buffer[] = [];
      for await (const part of stream) parts.push(part as Buffer);
      expect(Buffer.concat(parts).equals(bytes)).toBe(true);
    });

    test('a deleted blob is gone, deleting it again is no error, and it can be put again', async () => {
      const bytes = randomBytes(10);
      const { sha256 } = await put(bytes);
      await store.delete(sha256);
      await store.delete(sha256);
      expect(await store.stat(sha256)).toBeNull();
      await expect(store.open(sha256)).rejects.toMatchObject({ code: 'not_found' });
      await put(bytes);
      expect((await read(sha256)).equals(bytes)).toBe(true);
    });

    test.each(['', 'abc', '../../../../etc/passwd', `../${'a'.repeat(61)}`, 'A'.repeat(64), `${'a'.repeat(64)}\n`, `${'a'.repeat(62)}/x`])('refuses %j as a name', async (name_) => {
      const refusal = { code: 'invalid_input', param: 'sha256' };
      await expect(store.stat(name_)).rejects.toMatchObject(refusal);
      await expect(store.open(name_)).rejects.toMatchObject(refusal);
      await expect(store.delete(name_)).rejects.toMatchObject(refusal);
      await expect(put(Buffer.from('x'), { expected: { sha256: name_ } })).rejects.toMatchObject(refusal);
    });

    test('answers a ping', async () => {
      await expect(store.ping()).resolves.toBeUndefined();
    });
  });
}

/** Uneven pieces, an empty one among them. */
async function* inChunks(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield new Uint8Array(0);
  for (let start = 0, size = 1; start < bytes.length; start += size, size = (size * 7) % 65_537) yield bytes.subarray(start, start + size);
}
