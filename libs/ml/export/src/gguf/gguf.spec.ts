/** GGUF files against the gguf package (fixture of `tools/golden/gguf_fixture.py`), and read back by our own reader. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { GgufFile, dequantise, ggufTokenizerFields, interleavedToHalfRows, quantise, readAdapterFiles, tokenizerFromGguf, type GgufField, type GgufValue } from '@tunefleet/ml-formats';
import { architectureSpecs } from '@tunefleet/ml-models';
import { MergedWeights } from '../merged/merged-weights';
import { exportGguf, exportGgufAdapter } from './export-gguf';

const libraries = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const golden = JSON.parse(readFileSync(join(libraries, 'export', 'fixtures', 'gguf.json'), 'utf8')) as Record<string, Record<'F32' | 'F16' | 'Q8_0', Record<string, [number, number[], string]>>>;
const BASES = ['tied', 'scaled', ...Object.keys(architectureSpecs).filter((type) => type !== 'llama')];
const baseOf = (name: string) => join(libraries, 'models', 'fixtures', name);
const configOf = (name: string): unknown => JSON.parse(readFileSync(join(baseOf(name), 'config.json'), 'utf8'));

let work = '';
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'gguf-'));
});
afterAll(() => rm(work, { recursive: true, force: true }));

describe.each(BASES)('%s', (name) => {
  test.each(['F32', 'F16', 'Q8_0'] as const)('as %s has the names, shapes and bytes of the gguf package', async (type) => {
    const config = configOf(name);
    const path = join(work, `${name}-${type}.gguf`);
    using weights = MergedWeights.open(baseOf(name), config, null);
    await exportGguf(weights, path, { base: baseOf(name), config, type, name });
    using file = GgufFile.open(path);
    const found = [...file.tensors].filter(([tensor]) => tensor !== 'rope_freqs.weight').map(([tensor, { type: number, shape }]) => [tensor, [number, [...shape], createHash('sha256').update(file.read(tensor)).digest('hex')]]);
    expect(Object.fromEntries(found)).toEqual(golden[name]?.[type]);
    expect(file.metadata.get('general.architecture')).toBe(name === 'gemma3_text' ? 'gemma3' : ['tied', 'scaled', 'mistral'].includes(name) ? 'llama' : name);
  });
});

test('what the file says of a model', async () => {
  const fields = async (name: string): Promise<{ metadata: ReadonlyMap<string, GgufValue>; tensors: ReadonlyMap<string, unknown>; notices: string[] }> => {
    const path = join(work, `${name}-fields.gguf`);
    using weights = MergedWeights.open(baseOf(name), configOf(name), null);
    const notices = await exportGguf(weights, path, { base: baseOf(name), config: configOf(name), type: 'F16', name });
    using file = GgufFile.open(path);
    return { metadata: file.metadata, tensors: file.tensors, notices };
  };
  const gemma = await fields('gemma2');
  expect(Object.fromEntries(gemma.metadata)).toMatchObject({
    'general.file_type': 1,
    'gemma2.block_count': 3,
    'gemma2.attention.key_length': 12,
    'gemma2.attention.sliding_window': 5,
    'gemma2.final_logit_softcapping': 1.5,
    'tokenizer.ggml.model': 'none',
  });
  expect(gemma.notices.join()).toMatch(/scaled by 0.4472.*no tokenizer.json/);
  expect((await fields('mistral')).metadata.get('llama.context_length')).toBe(6);
  expect((await fields('scaled')).tensors.has('rope_freqs.weight')).toBe(true);
});

test('a LoRA as an adapter has the factors of its file, rotary rows turned', async () => {
  const folder = join(libraries, 'tuners', 'fixtures', 'architectures', 'mistral');
  const files = await readAdapterFiles(folder);
  const path = join(work, 'adapter.gguf');
  await exportGgufAdapter(baseOf('mistral'), configOf('mistral'), files, path);
  using file = GgufFile.open(path);
  expect(Object.fromEntries(file.metadata)).toEqual({ 'general.architecture': 'llama', 'general.type': 'adapter', 'adapter.type': 'lora', 'adapter.lora.alpha': 3 });
  expect(file.tensors.size).toBe(files.tensors.length);
  const source = (name: string) => new Float32Array(files.tensors.find((tensor) => tensor.name === `base_model.model.${name}`)!.data.slice().buffer);
  const at = 'model.layers.1.self_attn';
  expect(interleavedToHalfRows(file.readFloat32('blk.1.attn_q.weight.lora_b'), 4, 12)).toEqual(source(`${at}.q_proj.lora_B.weight`));
  expect(file.readFloat32('blk.1.attn_q.weight.lora_a')).toEqual(source(`${at}.q_proj.lora_A.weight`));
  expect(file.readFloat32('blk.1.attn_v.weight.lora_b')).toEqual(source(`${at}.v_proj.lora_B.weight`));
  const dora = { ...files, config: { ...files.config, use_dora: true } };
  await expect(exportGgufAdapter(baseOf('mistral'), configOf('mistral'), dora, join(work, 'dora.gguf'))).rejects.toThrow(/it is a DoRA, which cannot be a GGUF adapter/);
});

test('Q8_0 loses at most half a step', () => {
  const values = Float32Array.from({ length: 64 }, (_, index) => Math.sin(index * 3.3) * (index < 32 ? 1 : 1e-3));
  const back = dequantise(8, quantise('Q8_0', values));
  values.forEach((value, index) => expect(Math.abs(value - (back[index] ?? NaN))).toBeLessThan((index < 32 ? 1 : 1e-3) / 127 / 1.9));
});

describe('tokenizers', () => {
  const byteLevel = {
    added_tokens: [{ id: 3, content: '<eos>', special: true }],
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
    model: { type: 'BPE', vocab: { a: 0, b: 1, ab: 2 }, merges: [['a', 'b']] },
  };
  const sources = { tokenizerConfig: { eos_token: '<eos>' }, chatTemplate: '{{ x }}', vocabSize: 6, ids: { bos: 3, eos: null, pad: null } };

  test('byte-level BPE comes back as it was', () => {
    const fields = ggufTokenizerFields({ tokenizer: byteLevel, ...sources });
    expect(fields.get('tokenizer.ggml.token_type')).toEqual({ type: 'i32s', value: [1, 1, 1, 3, 5, 5] });
    const { tokenizer, tokenizerConfig, specialIds } = tokenizerFromGguf(valuesOf(fields), 64);
    expect(tokenizer).toMatchObject({ model: { merges: [['a', 'b']], vocab: { ab: 2 } }, added_tokens: [{ id: 3, content: '<eos>', special: true }] });
    expect(tokenizerConfig).toMatchObject({ chat_template: '{{ x }}', eos_token: '<eos>' });
    expect(specialIds).toEqual({ bos: 3, eos: 3, pad: 3 });
  });

  test('BPE with byte fallback is ordered by its merges', () => {
    const model = { type: 'BPE', byte_fallback: true, unk_token: '<unk>', vocab: { '<unk>': 0, '<0x0A>': 1, '▁': 2, a: 3, '▁a': 4, aa: 5 }, merges: ['a a', '▁ a'] };
    const fields = ggufTokenizerFields({ ...sources, tokenizer: { added_tokens: [{ id: 0, content: '<unk>', special: true }], normalizer: { type: 'Prepend', prepend: '▁' }, model } });
    expect(Object.fromEntries(valuesOf(fields))).toMatchObject({
      'tokenizer.ggml.model': 'llama',
      'tokenizer.ggml.scores': [-2, -2, -2, -2, -1, -0],
      'tokenizer.ggml.token_type': [2, 6, 1, 1, 1, 1],
      'tokenizer.ggml.add_space_prefix': true,
    });
  });

  test('others are refused', () => {
    expect(() => ggufTokenizerFields({ ...sources, tokenizer: { ...byteLevel, model: { type: 'Unigram' } } })).toThrow(/only BPE tokenizers/);
    expect(() => ggufTokenizerFields({ ...sources, tokenizer: { ...byteLevel, pre_tokenizer: { type: 'Whitespace' } } })).toThrow(/splits text in a way/);
    expect(() => ggufTokenizerFields({ ...sources, tokenizer: byteLevel, vocabSize: 3 })).toThrow(/4 tokens, but the model's embedding has 3 rows/);
  });
});

function valuesOf(fields: ReadonlyMap<string, GgufField>): Map<string, GgufValue> {
  return new Map([...fields].map(([key, { value }]) => [key, value]));
}
