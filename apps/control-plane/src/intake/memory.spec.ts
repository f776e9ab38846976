import { estimateMemory, parseTunerSpec } from '@tunefleet/ml-tuners/specs';
import { dtypeForEstimate, evalMemory, fineTuneMemory, fineTuneMemoryModel, requireFit, totalBytes } from './memory';
import { tinyDescription as model } from './testing/tiny-description';

const GIB = 1024 ** 3;
const worker = (name: string, memoryBytesTotal: number, bf16 = false) => ({ name, labels: {}, device: { kind: 'cpu', name: 'cpu', backend: 'b', backendVersion: '1', memoryBytesTotal, memoryBytesFree: 0, bf16, threads: 2 } as const });

test('auto counts in bf16 once some worker has it', () => {
  expect(dtypeForEstimate('auto', [worker('a', 1), worker('b', 1, true)])).toBe('bf16');
  expect(dtypeForEstimate('auto', [worker('a', 1)])).toBe('f32');
  expect(dtypeForEstimate('bf16', [])).toBe('bf16');
});

test('training: every part is there, weights, adapter and optimiser exactly', () => {
  const tuner = parseTunerSpec({ kind: 'lora', r: 2, target_modules: ['q_proj'] });
  const trainable = 2 * (2 * 16 + 16 * 2);
  const need = fineTuneMemory({ model, tuner, tokens: 10, dtype: 'f32' });
  expect(need).toMatchObject({ weights: 4 * model.parameterCount, adapter: 12 * trainable, optimiser: 20 * trainable });
  // At the peak of so small a model there are no logits.
  expect(need['activations']).toBeGreaterThan(0);
  expect(totalBytes(fineTuneMemory({ model, tuner, tokens: 100, dtype: 'f32' }))).toBeGreaterThan(totalBytes(need));
});

test('longer rows need more', () => {
  const need = (tokens: number) => totalBytes(evalMemory(model, { tokens, dtype: 'f32', adapterBytes: 7 }));
  expect(need(200)).toBeGreaterThan(need(100));
  expect(evalMemory(model, { tokens: 10, dtype: 'bf16', adapterBytes: 7 })).toMatchObject({ weights: 2 * model.parameterCount, adapter: 7, cache: 2 * 2 * 2 * 4 * 10 * 2 });
});

const any = { correction: 1, workerSelector: {}, advice: 'choose a smaller model' };

test('only what no worker could hold is refused, with numbers and advice', () => {
  const need = { weights: 3 * GIB, logits: GIB / 2, adapter: 0 };
  expect(() => requireFit(need, [], any)).not.toThrow();
  expect(() => requireFit(need, [worker('small', GIB), worker('large', 4 * GIB)], any)).not.toThrow();
  expect(() => requireFit(need, [worker('tiny', 1), worker('small', GIB)], any)).toThrow(
    expect.objectContaining({
      code: 'out_of_device_memory',
      reason: 'no_worker_large_enough',
      message: 'the job needs about 3.50 GiB of memory (weights 3.00, logits 0.50), the largest worker, small, has 1.00 GiB and gives a job 92 % of it: choose a smaller model',
    }),
  );
});

test('what jobs like it were measured to take counts, and so do the labels it asks for', () => {
  const need = { weights: 3 * GIB };
  const workers = [worker('large', 4 * GIB), { ...worker('labelled', 2 * GIB), labels: { zone: 'b' } }];
  expect(() => requireFit(need, workers, { ...any, correction: 1.5 })).toThrow(/about 4.50 GiB of memory \(weights 3.00; 1.50 times that, as measured on jobs like it\)/);
  expect(() => requireFit(need, workers, { ...any, workerSelector: { zone: 'b' } })).toThrow(/the largest worker with zone=b, labelled, has 2.00 GiB/);
  // Nobody has the labels: a worker that does may still come.
  expect(() => requireFit({ weights: 99 * GIB }, workers, { ...any, workerSelector: { zone: 'c' } })).not.toThrow();
});

test('the memory model foretells any number of rows', () => {
  const sized = { model, tuner: parseTunerSpec({ kind: 'lora', r: 2 }), tokens: 300, dtype: 'f32' } as const;
  const { fixedBytes, rowBytes } = fineTuneMemoryModel(sized);
  const estimate = estimateMemory({ model, spec: sized.tuner, computeDtype: 'f32', rows: 5, columns: 300 }).deviceBytes;
  expect(Math.abs(fixedBytes + 5 * rowBytes - estimate)).toBeLessThan(0.001 * estimate);
});
