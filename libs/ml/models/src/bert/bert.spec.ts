/** BERT against Hugging Face Transformers (fixture of `tools/golden/bert_fixture.py`), three texts of unlike length. */
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { encodeSafetensors, SafetensorsFile, SafetensorsFolder } from '@tunefleet/ml-formats';
import { openDevice, type Device } from '@tunefleet/ml-tensor';
import type { Encoder, EncoderBatch } from '../encoder';
import { maxDifference } from '../testing';
import { loadBert } from './load';
import { parseBert } from './spec';

const folder = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'fixtures', 'bert');
const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as Record<string, unknown>;
const [rows, columns, C] = [3, 12, 32];
const bytes = (name: string) => {
  using file = SafetensorsFile.open(join(folder, 'golden.safetensors'));
  return file.read(name).slice().buffer;
};
const golden = (name: string) => new Float32Array(bytes(name));
const batch: EncoderBatch = { ids: new Int32Array(bytes('ids')), rows, columns, lengths: new Int32Array(bytes('lengths')), tokenTypes: new Int32Array(bytes('types')) };

describe.each(['tensorflow', 'wasm'] as const)('bert on %s', (backend) => {
  let device: Device;
  let model: Encoder;
  beforeAll(async () => {
    device = await openDevice({ backend });
    model = await loadBert(device, { folder, config, computeDtype: 'f32' });
  });
  afterAll(() => model[Symbol.dispose]());
  const read = (run: () => ReturnType<Encoder['encode']>) => device.scope(() => device.readFloats(run()));

  test('hidden states of the texts, their means and the logits are those of Transformers', () => {
    const [hidden, wanted] = [read(() => model.encode(batch)), golden('hidden')];
    batch.lengths.forEach((length, row) => {
      const part = (values: Float32Array) => values.subarray(row * columns * C, (row * columns + length) * C);
      expect(maxDifference(part(hidden), part(wanted))).toBeLessThan(1e-4);
    });
    expect(maxDifference(read(() => model.embed(batch)), golden('mean'))).toBeLessThan(1e-4);
    expect(maxDifference(read(() => model.classify(batch)), golden('logits'))).toBeLessThan(1e-4);
    expect(model.classes).toBe(3);
  });

  test('padding changes nothing, and nothing is left on the device', () => {
    const before = device.memory.liveHandles - device.cachedScalars;
    const other = { ...batch, ids: Int32Array.from(batch.ids, (id, i) => (i % columns < (batch.lengths[Math.floor(i / columns)] ?? 0) ? id : 63)) };
    expect(maxDifference(read(() => model.classify(other)), golden('logits'))).toBeLessThan(1e-4);
    expect(device.memory.liveHandles - device.cachedScalars).toBe(before);
  });

  test('wrong inputs are refused', () => {
    const long = 33;
    expect(() => model.encode({ ids: new Int32Array(long), rows: 1, columns: long, lengths: Int32Array.of(1) })).toThrow('a text of 33 tokens is longer than the 32 positions');
    expect(() => model.encode({ ...batch, lengths: Int32Array.of(12, 0, 1) })).toThrow('lengths');
  });
});

test('a bare model with the names of the first published files: embeddings, no classifier', async () => {
  const device = await openDevice({ backend: 'tensorflow' });
  const old = await mkdtemp(join(tmpdir(), 'bert-'));
  try {
    using files = SafetensorsFolder.open(folder);
    const rename = (name: string) => name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta');
    const tensors = files.names().filter((name) => !name.startsWith('classifier')).map((name) => {
      const { dtype, shape } = files.entry(name);
      return { name: rename(name), dtype, shape, data: files.read(name).slice() };
    });
    await writeFile(join(old, 'model.safetensors'), encodeSafetensors(tensors));
    const notices: string[] = [];
    using model = await loadBert(device, { folder: old, config: { ...config, architectures: ['BertModel'] }, computeDtype: 'f32', onNotice: (message) => notices.push(message) });
    expect(maxDifference(device.scope(() => device.readFloats(model.embed(batch))), golden('mean'))).toBeLessThan(1e-4);
    expect(notices).toEqual([]);
    expect(model.projections[0]?.path).toBe('encoder.layer.0.attention.self.query');
    expect(() => model.classify(batch)).toThrow('this BERT has no classifier');
  } finally {
    await rm(old, { recursive: true, force: true });
  }
});

test('bf16 stays close to f32', async () => {
  const device = await openDevice({ backend: 'tensorflow' });
  using model = await loadBert(device, { folder, config, computeDtype: 'bf16' });
  expect(maxDifference(device.scope(() => device.readFloats(model.classify(batch))), golden('logits'))).toBeLessThan(0.15);
});

test.each([
  ['hidden_act: only the "gelu" activation is supported, got "relu"', { hidden_act: 'relu' }],
  ['position_embedding_type: only "absolute" positions are supported', { position_embedding_type: 'relative_key' }],
  ['is_decoder: BERT as a decoder is not supported', { is_decoder: true }],
  ['hidden_size: 32 must be a multiple of num_attention_heads (5)', { num_attention_heads: 5 }],
  ['model_type: must be "bert", got "roberta"', { model_type: 'roberta' }],
])('refused: %s', (message, change) => {
  expect(() => parseBert({ ...config, ...change })).toThrow(message);
});
