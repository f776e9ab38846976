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

test('parts add up; LoRA of rank 8 on everything', () => {
  const { weightBytes, adapterBytes, optimiserBytes, activationBytes, logitsBytes, totalBytes } = estimateMemory(shape);
  expect(weightBytes).toBe(134_515_008 * 4);
  expect(adapterBytes).toBe(2_442_240 * 4);
  expect(totalBytes).toBe(weightBytes + adapterBytes + optimiserBytes + activationBytes + logitsBytes);
});
