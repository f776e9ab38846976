/**
 * GGUF, safetensors and shard indices damaged at random, from a fixed seed and a fresh one: each is read, or refused with `incompatible_artifact`. Never anything else,
 * and never more memory than the file has bytes.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { errorCode } from '@tunefleet/foundation';
import { damagedBytes, damageSeeds, seededRandom, type RandomInt } from '@tunefleet/testing';
import { convertGgufToFolder, GgufFile, SafetensorsFile, SafetensorsFolder, encodeSafetensors, writeGguf, type GgufField } from './index';

const ROUNDS = 250;
let folder: string;
beforeAll(() => void (folder = mkdtempSync(join(tmpdir(), 'damaged-'))));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** @returns how often it was refused */
async function survives(seed: number, make: (random: RandomInt) => Uint8Array, path: string, use: (bytes: number) => void | Promise<void>, rounds = ROUNDS): Promise<number> {
  const random = seededRandom(seed);
  let refused = 0;
  for (let round = 0; round < rounds; round++) {
    const bytes = make(random);
    writeFileSync(path, bytes);
    try {
      await use(bytes.length);
    } catch (error) {
      expect([`seed ${seed}, round ${round}`, errorCode(error), String(error)]).toEqual([`seed ${seed}, round ${round}`, 'incompatible_artifact', String(error)]);
      refused++;
    }
  }
  return refused;
}

const floats = (count: number): Uint8Array => new Uint8Array(Float32Array.from({ length: count }, (_, index) => Math.sin(index)).buffer);

async function smallGguf(): Promise<Uint8Array> {
  const path = join(folder, 'whole.gguf');
  const metadata = new Map<string, GgufField>([
    ['general.architecture', { type: 'string', value: 'llama' }],
    ['llama.block_count', { type: 'u32', value: 1 }],
    ['llama.context_length', { type: 'u32', value: 64 }],
    ['llama.embedding_length', { type: 'u32', value: 8 }],
    ['llama.feed_forward_length', { type: 'u32', value: 8 }],
    ['llama.attention.head_count', { type: 'u32', value: 2 }],
    ['llama.attention.layer_norm_rms_epsilon', { type: 'f32', value: 1e-5 }],
    ['tokenizer.ggml.model', { type: 'string', value: 'gpt2' }],
    ['tokenizer.ggml.pre', { type: 'string', value: 'smollm' }],
    ['tokenizer.ggml.tokens', { type: 'strings', value: ['a', 'b', 'ab', '<s>'] }],
    ['tokenizer.ggml.token_type', { type: 'i32s', value: [1, 1, 1, 3] }],
    ['tokenizer.ggml.merges', { type: 'strings', value: ['a b'] }],
    ['tokenizer.ggml.bos_token_id', { type: 'u32', value: 3 }],
    ['tokenizer.ggml.eos_token_id', { type: 'u32', value: 3 }],
  ]);
  const tensors = [
    { name: 'token_embd.weight', type: 'F32', shape: [4, 8] },
    { name: 'blk.0.attn_q.weight', type: 'F32', shape: [8, 8] },
    { name: 'blk.0.ffn_up.weight', type: 'F32', shape: [8, 8] },
    { name: 'output_norm.weight', type: 'F32', shape: [8] },
  ] as const;
  await writeGguf(path, metadata, tensors, ({ shape }) => floats(shape.reduce((product, size) => product * size, 1)));
  return readFileSync(path);
}

describe.each(damageSeeds())('from seed %d', (seed) => {
  test('GGUF', async () => {
    const whole = await smallGguf();
    const path = join(folder, 'model.gguf');
    const refused = await survives(seed, (random) => damagedBytes(whole, random), path, (size) => {
      using file = GgufFile.open(path);
      const stored = [...file.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
      expect(stored).toBeLessThanOrEqual(size);
      for (const name of file.tensors.keys()) file.readFloat32(name);
    });
    expect(refused).toBeGreaterThan(ROUNDS / 10);
  });

  test('GGUF on the way to a model folder', async () => {
    const whole = await smallGguf();
    const out = mkdtempSync(join(folder, 'converted-'));
    const path = join(out, 'model.gguf');
    const refused = await survives(seed, (random) => damagedBytes(whole, random), path, () => convertGgufToFolder(path, out, { dtype: 'F32' }), 60);
    expect(refused).toBeGreaterThan(6);
  });

  test('safetensors', async () => {
    const whole = encodeSafetensors(Array.from({ length: 4 }, (_, index) => ({ name: `layer.${index}.weight`, dtype: 'F32' as const, shape: [3, 4], data: floats(12) })));
    const path = join(folder, 'model.safetensors');
    const refused = await survives(seed, (random) => damagedBytes(whole, random), path, (size) => {
      using file = SafetensorsFile.open(path);
      expect([...file.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0)).toBeLessThanOrEqual(size);
      for (const name of file.tensors.keys()) file.read(name);
    });
    expect(refused).toBeGreaterThan(ROUNDS / 10);
  });

  test('an index of shards', async () => {
    const shards = mkdtempSync(join(folder, 'shards-'));
    for (const shard of ['a', 'b']) writeFileSync(join(shards, `${shard}.safetensors`), encodeSafetensors([{ name: shard, dtype: 'F32', shape: [2], data: floats(2) }]));
    const whole = Buffer.from(JSON.stringify({ metadata: { total_size: 16 }, weight_map: { a: 'a.safetensors', b: 'b.safetensors' } }));
    const path = join(shards, 'model.safetensors.index.json');
    const refused = await survives(seed, (random) => damagedBytes(whole, random), path, () => {
      using files = SafetensorsFolder.open(shards);
      for (const name of files.names()) files.read(name);
    });
    expect(refused).toBeGreaterThan(ROUNDS / 10);
  });
});

test('GGUF tensors over the same bytes are refused by name, and what is no file', async () => {
  const whole = Buffer.from(await smallGguf());
  const path = join(folder, 'overlap.gguf');
  // The offset of the second tensor, the last eight bytes of its description, made that of the first.
  const name = whole.indexOf('blk.0.attn_q.weight');
  whole.writeBigUInt64LE(0n, name + 'blk.0.attn_q.weight'.length + 4 + 16 + 4);
  writeFileSync(path, whole);
  expect(() => GgufFile.open(path)).toThrow(/puts tensor "blk.0.attn_q.weight" over the bytes of tensor "token_embd.weight"/);
  expect(() => GgufFile.open(folder)).toThrow(/is not a regular file/);
});
