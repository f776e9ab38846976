import { parseTunerSpec } from '@tunefleet/ml-tuners/specs';
import { dtypeForEstimate, evalMemory, fineTuneMemory, requireFit, totalBytes } from './memory';
import { tinyDescription as model } from './testing/tiny-description';

const GIB = 1024 ** 3;
const worker = (name: string, memoryBytesTotal: number, bf16 = false) => ({ name, device: { kind: 'cpu', name: 'cpu', backend: 'b', backendVersion: '1', memoryBytesTotal, memoryBytesFree: 0, bf16, threads: 2 } as const });

test('auto counts in bf16 once some worker has it', () => {
  expect(dtypeForEstimate('auto', [worker('a', 1), worker('b', 1, true)])).toBe('bf16');
  expect(dtypeForEstimate('auto', [worker('a', 1)])).toBe('f32');
  expect(dtypeForEstimate('bf16', [])).toBe('bf16');
});

test('training: weights, and a step that grows with rows, rank and width of numbers', () => {
  const lora = (r: number) => parseTunerSpec({ kind: 'lora', r, target_modules: ['q_proj'] });
  const need = (r: number, tokens: number, dtype: 'f32' | 'bf16') => fineTuneMemory({ model, tuner: lora(r), tokens, dtype });
  expect(need(2, 10, 'f32')['weights']).toBe(4 * model.parameterCount);
  expect(need(2, 10, 'bf16')['weights']).toBe(2 * model.parameterCount);
  const step = (r: number, tokens: number) => need(r, tokens, 'f32')['step'] ?? 0;
  // 64 numbers a rank: q_proj of both layers is 16 x 16. The trainer holds each 8 times.
  expect(step(4, 10) - step(2, 10)).toBe(2 * 64 * 8 * 4);
  expect(step(2, 100)).toBeGreaterThan(step(2, 10));
});

test('longer rows need more', () => {
  const need = (tokens: number) => totalBytes(evalMemory(model, { tokens, dtype: 'f32', adapterBytes: 7 }));
  expect(need(200)).toBeGreaterThan(need(100));
  expect(evalMemory(model, { tokens: 10, dtype: 'bf16', adapterBytes: 7 })).toMatchObject({ weights: 2 * model.parameterCount, adapter: 7, cache: 2 * 2 * 2 * 4 * 10 * 2 });
});

test('only what no worker could hold is refused, with numbers and advice', () => {
  const need = { weights: 3 * GIB, logits: GIB / 2, adapter: 0 };
  expect(() => requireFit(need, [], 'x')).not.toThrow();
  expect(() => requireFit(need, [worker('small', GIB), worker('large', 4 * GIB)], 'x')).not.toThrow();
  expect(() => requireFit(need, [worker('tiny', 1), worker('small', GIB)], 'choose a smaller model')).toThrow(
    expect.objectContaining({
      code: 'out_of_device_memory',
      reason: 'no_worker_large_enough',
      message: 'the job needs about 3.50 GiB of memory (weights 3.00, logits 0.50), the largest worker, small, has 1.00 GiB: choose a smaller model',
    }),
  );
});
