/** The tuners' estimate against what the device counts during a step: not below, and not so far above that memory is wasted. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jest } from '@jest/globals';
import { PackedDataset } from '@tunefleet/ml-data';
import { describeCausalLm, loadCausalLm } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { createTuner, estimateMemory, parseTunerSpec } from '@tunefleet/ml-tuners';
import { writeTinyModel } from '@tunefleet/testing';
import { Trainer } from './trainer';
import { startState } from './trainer-state';

jest.setTimeout(60_000);

const COLUMNS = 128;

it.each([
  ['f32', 4, false],
  ['f32', 2, true],
  ['bf16', 4, false],
] as const)('%s, %i rows, recompute %p', async (computeDtype, microBatchSize, recomputeBlocks) => {
  const folder = await mkdtemp(join(tmpdir(), 'tunefleet-memory-'));
  try {
    await writeTinyModel(folder, { hiddenSize: 64, layers: 4 });
    const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as unknown;
    const device = await openDevice({ backend: 'tensorflow' });
    using model = await loadCausalLm(device, { folder, config, computeDtype });
    const spec = parseTunerSpec({ kind: 'lora', r: 4, target_modules: 'all-linear' });
    const tuner = createTuner(spec, model);
    const batching = { microBatchSize, recomputeBlocks };
    const trainer = new Trainer({
      model,
      tuner,
      dataset: new PackedDataset('even', { lengths: new Int32Array(4).fill(COLUMNS), ids: new Int32Array(4 * COLUMNS).fill(65), learned: new Uint8Array(4 * COLUMNS).fill(1) }),
      settings: { seed: 1, epochs: 1, batchSize: 4, learningRate: 1e-3, schedule: 'constant', warmupRatio: 0, weightDecay: 0, maxGradNorm: 1 },
      batching,
      state: startState(tuner.initialValues(1, { model, tokenise: () => new Int32Array() })),
    });
    device.resetPeak();
    const before = device.memory.liveBytes;
    await trainer.trainStep();
    const measured = device.memory.peakBytes - before;
    const { totalBytes, weightBytes } = estimateMemory({ model: describeCausalLm(config), spec, computeDtype, rows: microBatchSize, columns: COLUMNS, recomputeBlocks });
    const estimate = totalBytes - weightBytes;
    expect(estimate / measured).toBeGreaterThan(1);
    expect(estimate / measured).toBeLessThan(2.2);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
