/**
 * The trainer on a tiny random Llama with a real tuner. Exactness is checked bit by bit: a run that was saved, loaded into new objects and went on must
 * equal one that was not.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jest } from '@jest/globals';
import { PackedDataset, type TokenisedDataset } from '@tunefleet/ml-data';
import { loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { openDevice, type Device } from '@tunefleet/ml-tensor';
import { createTuner, type Tuner } from '@tunefleet/ml-tuners';
import { parseTunerSpec } from '@tunefleet/ml-tuners/specs';
import { writeTinyModel } from '@tunefleet/testing';
import { SavedCheckpoint, STATE_JSON, fingerprintOf, saveCheckpoint, type RunIdentity } from './checkpoint';
import { collate } from './collate';
import type { TrainingSettings } from './settings';
import { Trainer } from './trainer';
import type { StepResult } from './training-run';
import { startState, type TrainerState } from './trainer-state';

jest.setTimeout(60_000);

const settings: TrainingSettings = { seed: 11, epochs: 2, batchSize: 4, learningRate: 5e-3, schedule: 'cosine', warmupRatio: 0.1, weightDecay: 0.01, maxGradNorm: 1 };
const batching = { microBatchSize: 2, recomputeBlocks: false };
const identity: RunIdentity = { model: 'tiny@1', dataset: 'd', settings: fingerprintOf(settings) };

/** Each example repeats one token with a period of two, so there is something to learn. */
function repeats(examples: number): TokenisedDataset {
  const lengths = Int32Array.from({ length: examples }, (_, i) => 6 + ((i * 5) % 11));
  const total = lengths.reduce((a, b) => a + b, 0);
  const ids = new Int32Array(total);
  let at = 0;
  lengths.forEach((length, i) => {
    for (let t = 0; t < length; t++) ids[at++] = t % 2 === 0 ? 40 + (i % 3) : 90 + (i % 3);
  });
  return new PackedDataset('repeats', { lengths, ids, learned: new Uint8Array(total).fill(1) });
}

let folder: string;
let device: Device;
let model: CausalLm;
const dataset = repeats(14);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tunefleet-trainer-'));
  device = await openDevice({ backend: 'tensorflow' });
  const base = await writeTinyModel(join(folder, 'model'));
  model = await loadCausalLm(device, { folder: base, config: JSON.parse(await readFile(join(base, 'config.json'), 'utf8')) as unknown, computeDtype: 'f32' });
});

afterAll(async () => {
  model[Symbol.dispose]();
  await rm(folder, { recursive: true, force: true });
});

function lora(dropout: number): Tuner {
  return createTuner(parseTunerSpec({ kind: 'lora', r: 4, lora_alpha: 8, lora_dropout: dropout, target_modules: 'all-linear' }), model);
}

function trainer(options: { tuner?: Tuner; state?: TrainerState; settings?: Partial<TrainingSettings>; batching?: Partial<typeof batching> } = {}): Trainer {
  const tuner = options.tuner ?? lora(0);
  const state = options.state ?? startState(tuner.initialValues(settings.seed, { model, tokenise: () => new Int32Array() }));
  return new Trainer({ model, tuner, dataset, settings: { ...settings, ...options.settings }, batching: { ...batching, ...options.batching }, state });
}

async function run(of: Trainer, steps: number): Promise<StepResult[]> {
  const results: StepResult[] = [];
  for (let i = 0; i < steps; i++) results.push((await of.trainStep()) as StepResult);
  return results;
}

const facts = (results: readonly StepResult[]) => results.map(({ seconds: _seconds, ...rest }) => rest);

describe('a run resumed within or between epochs equals an uninterrupted one bit for bit', () => {
  it.each([
    [0, 3, {}],
    [0.1, 4, {}],
    [0.1, 5, { neftuneNoiseAlpha: 5 }],
  ])('dropout %p, after step %p of 8, %p', async (dropout, cut, noise) => {
    const tuner = lora(dropout);
    const whole = trainer({ tuner, settings: noise });
    expect([whole.stepsPerEpoch, whole.totalSteps]).toEqual([4, 8]);
    const expected = await run(whole, 8);

    const first = trainer({ tuner, settings: noise });
    const before = await run(first, cut);
    const saved = await mkdtemp(join(folder, 'ckpt-'));
    await saveCheckpoint(saved, { identity, choices: { ...batching, computeDtype: 'f32', weightDtype: 'f32' }, state: first.state }, tuner);

    const checkpoint = await SavedCheckpoint.open(saved);
    const again = lora(dropout);
    const second = trainer({ tuner: again, settings: noise, state: checkpoint.load(identity, again), batching: checkpoint.choices });
    const after = await run(second, 8 - cut);

    expect(facts([...before, ...after])).toEqual(facts(expected));
    expect(Buffer.from(second.state.values.buffer).equals(Buffer.from(whole.state.values.buffer))).toBe(true);
    expect(second.state.moments).toEqual(whole.state.moments);
    expect({ ...second.state, values: 0, moments: 0 }).toEqual({ ...whole.state, values: 0, moments: 0 });
    expect(second.finished).toBe(true);
  });
});

it('noise on the embeddings changes training steps, not validation', async () => {
  const [plain, noisy] = [trainer(), trainer({ settings: { neftuneNoiseAlpha: 5 } })];
  expect(facts([(await noisy.validate(dataset)) as never])).toEqual(facts([(await plain.validate(dataset)) as never]));
  const [[one], [other]] = [await run(plain, 1), await run(noisy, 1)];
  expect(Math.abs((one?.loss ?? NaN) - (other?.loss ?? NaN))).toBeGreaterThan(1e-4);
});

it('learns', async () => {
  const training = trainer({ settings: { epochs: 8, learningRate: 3e-2 } });
  const before = await training.validate(dataset);
  const results = await run(training, 32);
  const after = await training.validate(dataset);
  expect(results.at(-1)?.loss).toBeLessThan(0.35 * (results[0]?.loss ?? 0));
  expect(after?.loss).toBeLessThan(0.35 * (before?.loss ?? 0));
  expect((after?.correct ?? 0) / (after?.lossTokens ?? 1)).toBeGreaterThan(0.8);
  expect(training.state.lossFirst).toBe(results[0]?.loss);
  expect(training.state.trainedTokens).toBe(8 * dataset.lengths.reduce((a, b) => a + b, 0));
});

it('examples that share a row and a prefix learn as they do alone', async () => {
  const prefix = [7, 8, 9, 10, 11, 12];
  const examples = [[1, 2, 3, 4], [3, 1], [1, 4, 1], [2, 2, 3]].map((own) => [...prefix, ...own.map((token) => 50 + token)]);
  const shared = new PackedDataset('prefixed', {
    lengths: Int32Array.from(examples, ({ length }) => length),
    ids: Int32Array.from(examples.flat()),
    learned: Uint8Array.from(examples.flatMap((example) => example.map((_, index) => (index > prefix.length ? 1 : 0)))),
  });
  expect(collate(shared, Int32Array.of(0, 2, 3, 1), 1400).tokens.branches).toBeDefined();
  const tuner = lora(0);
  const runWith = async (microBatchSize: number) => {
    const training = new Trainer({ model, tuner, dataset: shared, settings: { ...settings, epochs: 4 }, batching: { ...batching, microBatchSize }, state: startState(tuner.initialValues(1, { model, tokenise: () => new Int32Array() })) });
    return { results: await run(training, 4), values: training.state.values };
  };
  const [together, alone] = [await runWith(4), await runWith(1)];
  together.results.forEach((result, index) => {
    const other = alone.results[index] as StepResult;
    expect(result.loss).toBeCloseTo(other.loss, 4);
    expect(result.gradNorm / other.gradNorm).toBeCloseTo(1, 3);
    expect([result.tokens, result.lossTokens, result.correct]).toEqual([other.tokens, other.lossTokens, other.correct]);
  });
  together.values.forEach((value, index) => expect(Math.abs(value - (alone.values[index] as number))).toBeLessThan(1e-4));
});

it.each([
  { microBatchSize: 1, recomputeBlocks: false },
  { microBatchSize: 4, recomputeBlocks: true },
])('how a step is cut into passes ($microBatchSize, recompute $recomputeBlocks) changes only rounding', async (other) => {
  const [a, b] = [trainer(), trainer({ batching: other })];
  const [ours, theirs] = [await run(a, 3), await run(b, 3)];
  ours.forEach((result, i) => {
    expect(Math.abs(result.loss - (theirs[i]?.loss ?? NaN))).toBeLessThan(1e-4);
    expect(theirs[i]?.lossTokens).toBe(result.lossTokens);
  });
});

it('holds nothing on the device between steps', async () => {
  const training = trainer({ tuner: lora(0.1) });
  await run(training, 1);
  const handles = () => device.memory.liveHandles - device.cachedScalars;
  const after1 = handles();
  await run(training, 4);
  await training.validate(dataset);
  expect(handles()).toBe(after1);
});

it('a stop between passes leaves the state as it was', async () => {
  const training = trainer({ batching: { microBatchSize: 1 } });
  await run(training, 2);
  const before = Buffer.from(training.state.values.buffer.slice(0));
  let asked = 0;
  expect(await training.trainStep(() => ++asked === 2)).toBeNull();
  expect(asked).toBe(2);
  expect(training.state.step).toBe(2);
  expect(Buffer.from(training.state.values.buffer).equals(before)).toBe(true);
  expect(await training.validate(dataset, () => true)).toBeNull();
});

it('a run that diverges fails with the step and what to change, before its state is spoiled', async () => {
  const training = trainer({ settings: { learningRate: 1e30, warmupRatio: 0, schedule: 'constant', maxGradNorm: 1000 } });
  const failure: unknown = await run(training, 8).catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: 'numerical', reason: 'not_finite', param: 'learning_rate' });
  expect((failure as Error).message).toMatch(/^training failed at step [2-8] of 8: .*Lower the learning rate \(now 1e\+30; try 1e\+29\)/);
  expect(training.state.values.every(Number.isFinite)).toBe(true);
});

describe('a checkpoint is refused', () => {
  let saved: string;
  beforeAll(async () => {
    const training = trainer();
    saved = await mkdtemp(join(folder, 'refused-'));
    await saveCheckpoint(saved, { identity, choices: { ...batching, computeDtype: 'f32', weightDtype: 'f32' }, state: training.state }, lora(0));
  });

  it.each([
    [{ model: 'other@1' }, /base model tiny@1, this job uses other@1/],
    [{ dataset: 'e' }, /other training data/],
    [{ settings: 'x' }, /other hyper-parameters/],
  ])('for a run that differs in %p', async (difference, message) => {
    const checkpoint = await SavedCheckpoint.open(saved);
    expect(() => checkpoint.load({ ...identity, ...difference }, lora(0))).toThrow(message);
  });

  it('for a tuner with other parameters', async () => {
    const other = createTuner(parseTunerSpec({ kind: 'lora', r: 2, target_modules: ['q_proj'] }), model);
    const checkpoint = await SavedCheckpoint.open(saved);
    expect(() => checkpoint.load(identity, other)).toThrow(/other parameters/);
  });

  it.each([['{"format": 99}'], ['not json']])('when its description is %p', async (text) => {
    const broken = await mkdtemp(join(folder, 'broken-'));
    await writeFile(join(broken, STATE_JSON), text);
    await expect(SavedCheckpoint.open(broken)).rejects.toMatchObject({ code: 'incompatible_artifact', reason: 'bad_checkpoint' });
  });
});
