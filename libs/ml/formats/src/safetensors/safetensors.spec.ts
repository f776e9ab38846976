/**
 * Round trips over random tensor sets, byte equality with the Python reference for one set, and hostile files: every damaged header
 * must end in a clear `incompatible_artifact` error, never in a crash, a hang or a large allocation.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { errorCode, errorMessage } from '@tunefleet/foundation';
import { SAFETENSORS_DTYPES, SafetensorsFile, SafetensorsFolder, byteLengthOf, encodeSafetensors, parseShardIndex, writeSafetensors, type SafetensorsDtype, type TensorInMemory } from './index';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'safetensors-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const dtypes = Object.keys(SAFETENSORS_DTYPES) as SafetensorsDtype[];
const tensor = fc
  .record({ name: fc.string({ minLength: 1, maxLength: 30, unit: 'grapheme' }), dtype: fc.constantFrom(...dtypes), shape: fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 4 }), seed: fc.integer() })
  .map(({ name, dtype, shape, seed }): TensorInMemory => ({ name, dtype, shape, data: Uint8Array.from({ length: byteLengthOf({ dtype, shape }) }, (_, i) => (seed + i * 31) & 255) }));
const tensorSet = fc.uniqueArray(tensor, { selector: ({ name }) => name, maxLength: 8 }).filter((set) => set.every(({ name }) => name !== '__metadata__'));

function store(bytes: Uint8Array, name = 'model.safetensors'): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

/** A file with the given header text and data size. */
function fileWith(header: string, dataBytes = 0): string {
  const json = Buffer.from(header);
  const bytes = Buffer.alloc(8 + json.length + dataBytes);
  bytes.writeBigUInt64LE(BigInt(json.length));
  json.copy(bytes, 8);
  return store(bytes);
}

function refusal(path: string): string {
  try {
    SafetensorsFile.open(path).close();
  } catch (error) {
    expect(errorCode(error)).toBe('incompatible_artifact');
    return errorMessage(error);
  }
  throw new Error('the file was accepted');
}

describe('round trip', () => {
  it('gives back every tensor, whatever the order of declaration', () => {
    fc.assert(
      fc.property(tensorSet, (set) => {
        const bytes = encodeSafetensors(set);
        expect(encodeSafetensors([...set].reverse())).toEqual(bytes);
        using file = SafetensorsFile.open(store(bytes));
        expect(file.metadata).toEqual({ format: 'pt' });
        expect([...file.tensors.keys()].sort()).toEqual(set.map(({ name }) => name).sort());
        for (const { name, dtype, shape, data } of set) {
          expect(file.entry(name)).toMatchObject({ dtype, shape });
          expect(file.read(name)).toEqual(data);
        }
      }),
      { numRuns: 60 },
    );
  });

  it('streams the same bytes as the in-memory encoder and leaves no partial file behind on failure', async () => {
    const set: TensorInMemory[] = [
      { name: 'b', dtype: 'F32', shape: [2], data: new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]) },
      { name: 'a', dtype: 'U8', shape: [3], data: new Uint8Array([7, 8, 9]) },
    ];
    const path = join(folder, 'out.safetensors');
    await writeSafetensors(path, set, ({ name }) => set.find((each) => each.name === name)!.data);
    const { readFileSync, readdirSync } = await import('node:fs');
    expect(new Uint8Array(readFileSync(path))).toEqual(encodeSafetensors(set));
    await expect(writeSafetensors(join(folder, 'bad.safetensors'), set, () => new Uint8Array(1))).rejects.toThrow('was declared with 8 bytes, got 1');
    expect(readdirSync(folder)).toEqual(['out.safetensors']);
  });

  it('orders and pads like the reference implementation', () => {
    const bytes = encodeSafetensors([
      { name: 'b', dtype: 'F32', shape: [2, 3], data: new Uint8Array(24) },
      { name: 'a', dtype: 'BF16', shape: [3], data: new Uint8Array(6) },
      { name: 'c', dtype: 'U8', shape: [1], data: new Uint8Array(1) },
      { name: 'd', dtype: 'F32', shape: [0, 4], data: new Uint8Array(0) },
      { name: 'é', dtype: 'F32', shape: [], data: new Uint8Array(4) },
    ]);
    // Printed by safetensors.torch.save 0.8 for the same tensors.
    const reference =
      '{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"d":{"dtype":"F32","shape":[0,4],"data_offsets":[24,24]},"é":{"dtype":"F32","shape":[],"data_offsets":[24,28]},"a":{"dtype":"BF16","shape":[3],"data_offsets":[28,34]},"c":{"dtype":"U8","shape":[1],"data_offsets":[34,35]}}  ';
    expect(Buffer.from(bytes.subarray(8, bytes.length - 35)).toString()).toBe(reference);
  });
});

describe('hostile files', () => {
  it.each<[string, string, number, RegExp]>([
    ['a bad type', '{"a":{"dtype":"Q4","shape":[1],"data_offsets":[0,4]}}', 4, /dtype "Q4"; known are/],
    ['data outside the file', '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', 4, /outside the 4 data bytes/],
    ['a shape that overflows', '{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}', 4, /too large/],
    ['a shape that disagrees with its data', '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', 4, /= 8 bytes but 4 bytes/],
    ['a negative size', '{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', 4, /bad shape/],
    ['a fraction', '{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,6]}}', 6, /bad shape/],
    ['a duplicate name', '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', 2, /"a" twice/],
    ['overlap', '{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}', 3, /overlap/],
    ['a hole', '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}', 3, /1 unused bytes before tensor "b"/],
    ['bytes at the end', '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 9, /8 bytes after its last tensor/],
    ['no JSON', '{"a":', 0, /not JSON/],
    ['an array', '[]', 0, /not a JSON object/],
    ['bad metadata', '{"__metadata__":{"x":1}}', 0, /__metadata__/],
    ['reversed offsets', '{"a":{"dtype":"U8","shape":[0],"data_offsets":[2,1]}}', 2, /outside/],
  ])('refuses %s', (_what, header, dataBytes, message) => {
    expect(refusal(fileWith(header, dataBytes))).toMatch(message);
  });

  it('refuses a header length beyond the file or the limit without reading it', () => {
    const bytes = Buffer.alloc(16);
    bytes.writeBigUInt64LE(50_000_000n);
    expect(refusal(store(bytes))).toMatch(/only 8 follow/);
    bytes.writeBigUInt64LE(2n ** 60n);
    expect(refusal(store(bytes))).toMatch(/limit is 100000000/);
    expect(refusal(store(Buffer.alloc(3)))).toMatch(/too few/);
  });

  it('survives any damage to a valid file: either a clear refusal or the whole file is read', () => {
    const good = encodeSafetensors([
      { name: 'x', dtype: 'F32', shape: [2, 2], data: new Uint8Array(16) },
      { name: 'y', dtype: 'I8', shape: [3], data: new Uint8Array(3) },
    ]);
    const damage = fc.array(fc.record({ at: fc.nat(good.length - 1), value: fc.nat(255) }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(damage, fc.nat(good.length), (changes, cut) => {
        const bytes = good.slice(0, cut % 3 === 0 ? cut : good.length);
        for (const { at, value } of changes) if (at < bytes.length) bytes[at] = value;
        try {
          using file = SafetensorsFile.open(store(bytes));
          for (const name of file.tensors.keys()) expect(file.read(name).length).toBe(file.entry(name).byteLength);
        } catch (error) {
          expect(errorCode(error)).toBe('incompatible_artifact');
        }
      }),
      { numRuns: 400 },
    );
  });
});

describe('shards', () => {
  const one = encodeSafetensors([{ name: 'x', dtype: 'U8', shape: [2], data: new Uint8Array([1, 2]) }]);
  const two = encodeSafetensors([{ name: 'y', dtype: 'U8', shape: [1], data: new Uint8Array([3]) }]);

  it('reads tensors across shards', () => {
    store(one, 'model-00001-of-00002.safetensors');
    store(two, 'model-00002-of-00002.safetensors');
    writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map: { x: 'model-00001-of-00002.safetensors', y: 'model-00002-of-00002.safetensors' } }));
    using model = SafetensorsFolder.open(folder);
    expect(model.names().sort()).toEqual(['x', 'y']);
    expect(model.read('y')).toEqual(new Uint8Array([3]));
    expect(() => model.read('z')).toThrow('no tensor "z"');
  });

  it('refuses an index that disagrees with its shards', () => {
    store(one, 'a.safetensors');
    writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map: { y: 'a.safetensors' } }));
    expect(() => SafetensorsFolder.open(folder)).toThrow('lacks tensor "y"');
    writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map: { y: 'gone.safetensors' } }));
    expect(() => SafetensorsFolder.open(folder)).toThrow('lacks a weight file');
  });

  it.each(['../x.safetensors', '/etc/x.safetensors', 'a/b.safetensors', '.hidden.safetensors', 'x.bin', '..\\x.safetensors'])('refuses the path %s in an index', (path) => {
    expect(() => parseShardIndex(JSON.stringify({ weight_map: { x: path } }))).toThrow('not a plain .safetensors file name');
  });
});
