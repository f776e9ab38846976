/** Whether the parts are of the right size is in ml/training's step-memory.spec.ts, beside what is counted and measured. */
import { describeCausalLm } from '@tunefleet/ml-models/specs';
import { estimateMemory, parseTunerSpec } from './specs';

const SMOL = { model_type: 'llama', vocab_size: 49152, hidden_size: 576, intermediate_size: 1536, num_hidden_layers: 30, num_attention_heads: 9, num_key_value_heads: 3, tie_word_embeddings: true };
const shape = { model: describeCausalLm(SMOL), spec: parseTunerSpec({ kind: 'lora', target_modules: 'all-linear' }), computeDtype: 'f32' as const, rows: 4, columns: 256 };

test('parts add up; LoRA of rank 8 on everything', () => {
  const { weightBytes, adapterBytes, gradientBytes, activationBytes, logitsBytes, deviceBytes, optimiserBytes, totalBytes } = estimateMemory(shape);
  expect(weightBytes).toBe(134_515_008 * 4);
  // Values, and factors side by side with zeros between them.
  expect(adapterBytes).toBe(2_442_240 * 4 * 3);
  expect(optimiserBytes).toBe(2_442_240 * 4 * 5);
  expect(deviceBytes).toBe(weightBytes + adapterBytes + gradientBytes + activationBytes + logitsBytes);
  expect(totalBytes).toBe(deviceBytes + optimiserBytes);
});

test('nothing is kept of blocks that no gradient goes back through', () => {
  const of = (fields: { readonly kind: 'side-tuning' | 'adapter'; readonly target_modules?: string }) => estimateMemory({ ...shape, spec: parseTunerSpec(fields) }).activationBytes;
  const everywhere = of({ kind: 'adapter' });
  const lastTwo = of({ kind: 'adapter', target_modules: String.raw`model\.layers\.(28|29)\.mlp` });
  expect(lastTwo).toBeLessThan(0.25 * everywhere);
  expect(of({ kind: 'side-tuning' })).toBeLessThan(0.2 * everywhere);
  expect(of({ kind: 'side-tuning', target_modules: String.raw`model\.layers\.15` })).toBeGreaterThan(0.4 * everywhere);
});
