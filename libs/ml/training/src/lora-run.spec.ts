/** Ten steps of LoRA against the same run in PEFT and torch (`tools/golden/lora_run_fixture.py`): loss, gradient norm and rate of every step. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { jest } from '@jest/globals';
import { PackedDataset } from '@tunefleet/ml-data';
import { loadCausalLm } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { loadAdapter } from '@tunefleet/ml-tuners';
import type { TrainingSettings } from './settings';
import { Trainer } from './trainer';
import { startState } from './trainer-state';

jest.setTimeout(60_000);

interface Run {
  readonly examples: readonly { ids: number[]; labels: number[] }[];
  readonly settings: Pick<TrainingSettings, 'learningRate' | 'warmupRatio' | 'weightDecay' | 'maxGradNorm' | 'schedule'>;
  readonly steps: readonly { loss: number; gradNorm: number; learningRate: number }[];
}

const fixtures = fileURLToPath(new URL('../fixtures/lora-run/', import.meta.url));
const readJson = (name: string): unknown => JSON.parse(readFileSync(fixtures + name, 'utf8'));
const run = readJson('run.json') as Run;

const dataset = new PackedDataset('golden', {
  lengths: Int32Array.from(run.examples, ({ ids }) => ids.length),
  ids: Int32Array.from(run.examples.flatMap(({ ids }) => ids)),
  learned: Uint8Array.from(run.examples.flatMap(({ labels }) => labels.map((label) => (label === -100 ? 0 : 1)))),
});

it.each([
  ['tensorflow', 'in one pass', 4, false],
  ['tensorflow', 'example by example, recomputing blocks', 1, true],
  ['wasm', 'in two passes', 2, false],
] as const)('losses, gradient norms and rates follow PEFT, on %s, %s', async (backend, _how, microBatchSize, recomputeBlocks) => {
  const device = await openDevice({ backend });
  const folder = `${fixtures}model`;
  using model = await loadCausalLm(device, { folder, config: readJson('model/config.json'), computeDtype: 'f32' });
  const { tuner, values, dispose } = await loadAdapter(model, `${fixtures}adapter`);
  const trainer = new Trainer({
    model,
    tuner,
    dataset,
    settings: { ...run.settings, seed: 1, epochs: run.steps.length, batchSize: run.examples.length },
    batching: { microBatchSize, recomputeBlocks },
    state: startState(values),
  });
  for (const expected of run.steps) {
    const step = await trainer.trainStep();
    expect(Math.abs((step?.loss ?? NaN) - expected.loss)).toBeLessThan(2e-5);
    expect(Math.abs((step?.gradNorm ?? NaN) - expected.gradNorm)).toBeLessThan(5e-5);
    expect(Math.abs((step?.learningRate ?? NaN) - expected.learningRate)).toBeLessThan(1e-9);
  }
  expect(trainer.finished).toBe(true);
  dispose();
});
