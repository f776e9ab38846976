/** Ten steps of direct preference optimisation against the same run in PEFT and torch, with TRL's formula (`tools/golden/dpo_run_fixture.py`). */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { jest } from '@jest/globals';
import { PackedDataset } from '@tunefleet/ml-data';
import { loadCausalLm } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { loadAdapter, type Tuner } from '@tunefleet/ml-tuners';
import { collate } from './collate';
import { PreferenceObjective, referenceLogProbs } from './preference';
import { Trainer } from './trainer';
import { startState } from './trainer-state';

jest.setTimeout(120_000);

type Example = { readonly ids: number[]; readonly labels: number[] };
interface Run {
  readonly beta: number;
  readonly learningRate: number;
  readonly maxGradNorm: number;
  readonly pairs: readonly (readonly [Example, Example])[];
  readonly reference: readonly (readonly [number, number])[];
  readonly steps: readonly { readonly [name: string]: number; readonly loss: number; readonly gradNorm: number }[];
  /** Of step 2, before clipping. */
  readonly gradients: Readonly<Record<string, number[]>>;
  /** After the last step. */
  readonly values: Readonly<Record<string, number[]>>;
}

const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url));
const readJson = (name: string): unknown => JSON.parse(readFileSync(fixtures + name, 'utf8'));
const run = readJson('dpo-run/run.json') as Run;
const examples = run.pairs.flat();

const dataset = new PackedDataset('golden', {
  lengths: Int32Array.from(examples, ({ ids }) => ids.length),
  ids: Int32Array.from(examples.flatMap(({ ids }) => ids)),
  learned: Uint8Array.from(examples.flatMap(({ labels }) => labels.map((label) => (label === -100 ? 0 : 1)))),
});

it.each([
  ['tensorflow', 'in one pass', 3, false],
  ['tensorflow', 'pair by pair, recomputing blocks', 1, true],
  ['wasm', 'in two passes', 2, false],
] as const)('losses, rewards, gradients and final values follow torch, on %s, %s', async (backend, _how, microBatchSize, recomputeBlocks) => {
  const device = await openDevice({ backend });
  const folder = `${fixtures}lora-run/model`;
  using model = await loadCausalLm(device, { folder, config: readJson('lora-run/model/config.json'), computeDtype: 'f32' });
  const { tuner, values, dispose } = await loadAdapter(model, `${fixtures}lora-run/adapter`);
  const reference = await referenceLogProbs({ model, adapter: null, dataset, microBatchSize });
  expect(difference(reference ?? [], run.reference.flat())).toBeLessThan(1e-4);
  const state = startState(values);
  const trainer = new Trainer({
    model,
    tuner,
    dataset,
    settings: { seed: 1, epochs: run.steps.length, batchSize: run.pairs.length, learningRate: run.learningRate, schedule: 'constant', warmupRatio: 0, weightDecay: 0, maxGradNorm: run.maxGradNorm },
    batching: { microBatchSize, recomputeBlocks },
    objective: new PreferenceObjective(run.beta, new Map([[dataset, reference ?? new Float32Array()]])),
    state,
  });
  let before = new Float32Array();
  for (const [index, { loss, gradNorm, ...means }] of run.steps.entries()) {
    const step = await trainer.trainStep();
    expect(Math.abs((step?.loss ?? NaN) - loss)).toBeLessThan(2e-5);
    expect(Math.abs((step?.gradNorm ?? NaN) - gradNorm)).toBeLessThan(1e-4);
    // The first step's rewards are rounding errors: policy and reference are the same.
    if (index > 0) for (const [name, mean] of Object.entries(means)) expect(Math.abs((step?.means[name] ?? NaN) - mean)).toBeLessThan(1e-4);
    if (index === 1) {
      // Moments are m = 0.9 m + 0.1 g with the clipped gradient g.
      const clip = Math.min(1, run.maxGradNorm / (gradNorm + 1e-6));
      const gradient = state.moments.m.map((m, i) => (m - 0.9 * (before[i] ?? NaN)) / (0.1 * clip));
      expect(difference(gradient, inOurOrder(tuner, run.gradients))).toBeLessThan(2e-5);
    }
    before = state.moments.m.slice();
  }
  expect(difference(state.values, inOurOrder(tuner, run.values))).toBeLessThan(2e-4);

  const validation = await trainer.validate(dataset);
  expect(validation?.means['rewards/accuracies']).toBe(1);
  expect(validation?.loss).toBeLessThan(run.steps.at(-1)?.loss ?? NaN);
  dispose();
});

it('bf16 stays near', async () => {
  const device = await openDevice({ backend: 'tensorflow' });
  using model = await loadCausalLm(device, { folder: `${fixtures}lora-run/model`, config: readJson('lora-run/model/config.json'), computeDtype: 'bf16' });
  const { tuner, values, dispose } = await loadAdapter(model, `${fixtures}lora-run/adapter`);
  const reference = await referenceLogProbs({ model, adapter: null, dataset, microBatchSize: 3 });
  const trainer = new Trainer({
    model,
    tuner,
    dataset,
    settings: { seed: 1, epochs: run.steps.length, batchSize: run.pairs.length, learningRate: run.learningRate, schedule: 'constant', warmupRatio: 0, weightDecay: 0, maxGradNorm: run.maxGradNorm },
    batching: { microBatchSize: 3, recomputeBlocks: false },
    objective: new PreferenceObjective(run.beta, new Map([[dataset, reference ?? new Float32Array()]])),
    state: startState(values),
  });
  for (const { loss } of run.steps.slice(0, 5)) expect(Math.abs(((await trainer.trainStep())?.loss ?? NaN) - loss)).toBeLessThan(0.03);
  dispose();
});

it('the two answers to a prompt share its tokens in one row', () => {
  const start = Array.from({ length: 40 }, (_, i) => i);
  const answers = [[41, 42, 43], [44, 45]];
  const pair = new PackedDataset('pair', {
    lengths: Int32Array.from(answers, (answer) => 40 + answer.length),
    ids: Int32Array.from(answers.flatMap((answer) => [...start, ...answer])),
    learned: Uint8Array.from(answers.flatMap((answer) => [...start.map(() => 0), ...answer.map(() => 1)])),
  });
  const batch = collate(pair, Int32Array.of(0, 1), 1400, 2);
  // 39 shared tokens; the last of the prompt predicts the first of each answer.
  expect([batch.tokens.rows, batch.tokens.columns, batch.tokenCount, batch.lossTokens]).toEqual([1, 48, 85, 5]);
  expect([...(batch.tokens.positions ?? [])].slice(37, 46)).toEqual([37, 38, 39, 40, 41, 42, 39, 40, 41]);
});

/** PEFT's B is [out, R], ours [R, out]. */
function inOurOrder(tuner: Tuner, theirs: Readonly<Record<string, number[]>>): number[] {
  return tuner.parameters.flatMap(({ name, shape }) => {
    const given = theirs[name] ?? [];
    if (!name.includes('.lora_B.')) return given;
    const [rank = 0, out = 0] = shape;
    return Array.from({ length: rank * out }, (_, i) => given[(i % out) * rank + Math.floor(i / out)] ?? NaN);
  });
}

function difference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return a.length === b.length ? Math.max(...Array.from(a, (value, i) => Math.abs(value - (b[i] ?? NaN)))) : Infinity;
}
