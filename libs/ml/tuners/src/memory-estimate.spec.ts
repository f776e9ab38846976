import { describeCausalLm } from '@tunefleet/ml-models/specs';
import { estimateMemory, parseTunerSpec } from './specs';

const SMOL = { model_type: 'llama', vocab_size: 49152, hidden_size: 576, intermediate_size: 1536, num_hidden_layers: 30, num_attention_heads: 9, num_key_value_heads: 3, tie_word_embeddings: true };
const shape = { model: describeCausalLm(SMOL), spec: parseTunerSpec({ kind: 'lora', target_modules: 'all-linear' }), computeDtype: 'f32' as const, rows: 4, columns: 256 };

/** Highest `device.memory` of a forward and backward pass of this shape, measured without the optimiser's moments. */
test.each([
  [{}, 1767],
  [{ recomputeBlocks: true }, 840],
  [{ rows: 1 }, 913],
  [{ computeDtype: 'bf16' as const }, 990],
])('covers the measured peak, not by much: %j', (change, measuredMegabytes) => {
  const { totalBytes } = estimateMemory({ ...shape, ...change });
  expect(totalBytes / 1e6).toBeGreaterThan(measuredMegabytes);
  expect(totalBytes / 1e6).toBeLessThan(1.25 * measuredMegabytes);
});

/** The same for six blocks of other model types, 4 x 256 tokens in f32. */
const SMALL = { vocab_size: 8192, hidden_size: 576, intermediate_size: 1536, num_hidden_layers: 6, num_attention_heads: 9, num_key_value_heads: 3, tie_word_embeddings: true, max_position_embeddings: 2048, head_dim: 64 };
test.each([
  [{ ...SMALL, model_type: 'qwen3' }, 401],
  [{ ...SMALL, model_type: 'phi3' }, 379],
  [{ ...SMALL, model_type: 'gemma2' }, 478],
  [{ ...SMALL, model_type: 'gemma3_text' }, 430],
  [{ model_type: 'gpt2', vocab_size: 8192, n_embd: 576, n_layer: 6, n_head: 9, n_positions: 1024 }, 396],
])('covers the measured peak of %j', (config, measuredMegabytes) => {
  const { totalBytes } = estimateMemory({ ...shape, model: describeCausalLm(config) });
  expect(totalBytes / 1e6).toBeGreaterThan(measuredMegabytes);
  expect(totalBytes / 1e6).toBeLessThan(1.25 * measuredMegabytes);
});

/** The same where nothing of the blocks is kept, and where branches are; every token learned. */
test.each([
  [{ kind: 'restuning-bypass' }, 4, 974],
  [{ kind: 'restuning-bypass', stem_stride: 5 }, 4, 792],
  [{ kind: 'restuning' }, 2, 1314],
])('covers the measured peak of %j', (fields, rows, measuredMegabytes) => {
  const { totalBytes } = estimateMemory({ ...shape, spec: parseTunerSpec(fields), rows });
  expect(totalBytes / 1e6).toBeGreaterThan(measuredMegabytes);
  expect(totalBytes / 1e6).toBeLessThan(1.25 * measuredMegabytes);
});

test('parts add up; LoRA of rank 8 on everything', () => {
  const { weightBytes, adapterBytes, optimiserBytes, activationBytes, logitsBytes, totalBytes } = estimateMemory(shape);
  expect(weightBytes).toBe(134_515_008 * 4);
  expect(adapterBytes).toBe(2_442_240 * 4);
  expect(totalBytes).toBe(weightBytes + adapterBytes + optimiserBytes + activationBytes + logitsBytes);
});

test('nothing is kept of blocks that no gradient goes back through', () => {
  const of = (fields: { readonly kind: 'side-tuning' | 'adapter'; readonly target_modules?: string }) => estimateMemory({ ...shape, spec: parseTunerSpec(fields) }).activationBytes;
  const everywhere = of({ kind: 'adapter' });
  const lastTwo = of({ kind: 'adapter', target_modules: String.raw`model\.layers\.(28|29)\.mlp` });
  expect(lastTwo).toBeLessThan(0.25 * everywhere);
  expect(of({ kind: 'side-tuning' })).toBeLessThan(0.2 * everywhere);
  expect(of({ kind: 'side-tuning', target_modules: String.raw`model\.layers\.15` })).toBeGreaterThan(0.4 * everywhere);
});
