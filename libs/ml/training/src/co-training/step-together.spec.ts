/** Runs of several kinds that share passes, against each of them alone; on a tiny random Llama. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jest } from '@jest/globals';
import { PackedDataset, type TokenisedDataset } from '@tunefleet/ml-data';
import { loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { openDevice, type Device } from '@tunefleet/ml-tensor';
import { createTuner } from '@tunefleet/ml-tuners';
import { parseTunerSpec } from '@tunefleet/ml-tuners/specs';
import { writeTinyModel } from '@tunefleet/testing';
import { fingerprintOf, SavedCheckpoint, saveCheckpoint, type RunIdentity } from '../checkpoint';
import { PreferenceObjective } from '../preference';
import type { Batching, TrainingSettings } from '../settings';
import { Trainer } from '../trainer';
import { startState, type TrainerState } from '../trainer-state';
import type { StepResult } from '../training-run';
import { packPasses } from './pack-passes';
import { stepTogether, type StepOutcome } from './step-together';

jest.setTimeout(60_000);

/** Of losses, gradient norms and values after eight steps: only the order of f32 sums differs. */
const TOLERANCE = 2e-5;
const tokensPerPass = 256;

/** Each example repeats one token with a period of two. */
function repeats(examples: number, learnedFrom = 0): TokenisedDataset {
  const lengths = Int32Array.from({ length: examples }, (_, i) => 6 + ((i * 5) % 11));
  const ids = Int32Array.from([...lengths].flatMap((length, i) => Array.from({ length }, (_, t) => (t % 2 === 0 ? 40 : 90) + (i % 3))));
  const learned = Uint8Array.from([...lengths].flatMap((length) => Array.from({ length }, (_, t) => (t < learnedFrom ? 0 : 1))));
  return new PackedDataset('repeats', { lengths, ids, learned });
}

interface RunSpec {
  readonly fields?: object;
  readonly data?: TokenisedDataset;
  readonly settings?: Partial<TrainingSettings>;
  readonly batching?: Partial<Batching>;
  readonly preference?: true;
}

const settings: TrainingSettings = { seed: 11, epochs: 3, batchSize: 2, learningRate: 5e-3, schedule: 'cosine', warmupRatio: 0.1, weightDecay: 0.01, maxGradNorm: 1 };

/** What may differ from run to run: tuner, its size, dropout, noise, data, batch, passes per step, rate, schedule, clipping, loss. */
const RUNS: readonly RunSpec[] = [
  {},
  { settings: { seed: 5, learningRate: 1e-3, neftuneNoiseAlpha: 3 } },
  { fields: { lora_dropout: 0.2 }, settings: { neftuneNoiseAlpha: 5 } },
  { fields: { r: 3, target_modules: ['q_proj', 'down_proj'] }, settings: { batchSize: 5, schedule: 'constant' }, batching: { microBatchSize: 2 } },
  { fields: { kind: 'ia3' }, data: repeats(9, 4) },
  { fields: { kind: 'adapter' }, settings: { maxGradNorm: 0.1, weightDecay: 0 } },
  { fields: { modules_to_save: ['lm_head'] } },
  { preference: true, settings: { epochs: 2 } },
];

let folder: string;
let device: Device;
let model: CausalLm;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tunefleet-together-'));
  device = await openDevice({ backend: 'tensorflow' });
  const base = await writeTinyModel(join(folder, 'model'));
  model = await loadCausalLm(device, { folder: base, config: JSON.parse(await readFile(join(base, 'config.json'), 'utf8')) as unknown, computeDtype: 'f32' });
});
afterAll(async () => {
  model[Symbol.dispose]();
  await rm(folder, { recursive: true, force: true });
});

const tunerOf = ({ fields }: RunSpec) => createTuner(parseTunerSpec({ kind: 'lora', ...(fields && 'kind' in fields ? {} : { r: 4, lora_alpha: 8, target_modules: 'all-linear' }), ...fields }), model);

function start(spec: RunSpec, state?: TrainerState): Trainer {
  const tuner = tunerOf(spec);
  const dataset = spec.data ?? repeats(14);
  return new Trainer({
    model,
    tuner,
    dataset,
    settings: { ...settings, ...spec.settings },
    batching: { microBatchSize: 2, recomputeBlocks: false, ...spec.batching },
    ...(spec.preference ? { objective: new PreferenceObjective(0.5, new Map([[dataset, new Float32Array(dataset.length).fill(-20)]])) } : {}),
    state: state ?? startState(tuner.initialValues(spec.settings?.seed ?? settings.seed, { model, tokenise: () => new Int32Array() })),
  });
}

async function alone(trainer: Trainer, steps: number): Promise<StepResult[]> {
  const results: StepResult[] = [];
  for (let step = 0; step < steps && !trainer.finished; step++) results.push((await trainer.trainStep()) as StepResult);
  return results;
}

async function together(trainers: readonly Trainer[], options: { readonly tokens?: number } = {}): Promise<StepOutcome[]> {
  return (await stepTogether(trainers, { tokensPerPass: options.tokens ?? tokensPerPass })) as StepOutcome[];
}

function expectNear(got: Trainer, wanted: Trainer): void {
  expect({ ...got.state, values: 0, moments: 0, lossFirst: 0, lossLast: 0 }).toEqual({ ...wanted.state, values: 0, moments: 0, lossFirst: 0, lossLast: 0 });
  expect(Math.abs((got.state.lossLast ?? NaN) - (wanted.state.lossLast ?? NaN))).toBeLessThan(TOLERANCE);
  const most = got.state.values.reduce((max, value, i) => Math.max(max, Math.abs(value - (wanted.state.values[i] ?? NaN))), 0);
  expect(most).toBeLessThan(TOLERANCE);
}

/** All that is reported of a step, -1 for what does not apply. */
function numbersOf({ seconds: _seconds, means, ...rest }: StepResult): Map<string, number> {
  return new Map(Object.entries({ ...rest, ...means }).map(([name, value]) => [name, value ?? -1]));
}

describe.each([
  ['in one pass', 4096],
  ['in passes of few tokens', 64],
])('runs that share steps, %s', (_name, tokens) => {
  it('give what each gives alone: losses, norms, rates, counts, values', async () => {
    const joint = RUNS.map((spec) => start(spec));
    const lone = RUNS.map((spec) => start(spec));
    let held = Infinity;
    for (let step = 0; step < 8; step++) {
      // By then every width has been met, and its tables are kept.
      if (step === 4) held = device.memory.liveHandles - device.cachedScalars;
      const outcomes = await together(joint, { tokens });
      for (const [index, trainer] of lone.entries()) {
        const [wanted] = (await alone(trainer, 1)) as [StepResult];
        const got = numbersOf((outcomes[index] as { readonly result: StepResult }).result);
        for (const [name, value] of numbersOf(wanted)) expect(Math.abs((got.get(name) ?? NaN) - value)).toBeLessThan(TOLERANCE * Math.max(1, Math.abs(value)));
        expect(got.size).toBe(numbersOf(wanted).size);
      }
    }
    joint.forEach((trainer, index) => expectNear(trainer, lone[index] as Trainer));
    expect(device.memory.liveHandles - device.cachedScalars).toBe(held);
  });
});

it('runs begin, end and pause while others go on; each resumes alone from its checkpoint', async () => {
  const identity: RunIdentity = { model: 'tiny@1', dataset: 'd', settings: fingerprintOf(settings) };
  const [first, second, late] = [start({}), start({ settings: { seed: 2, epochs: 1 } }), start({ settings: { seed: 3 } })];
  for (let step = 0; step < 3; step++) await together([first, second]);
  while (!second.finished) await together([second, late, first]);
  const choices = { microBatchSize: 2, recomputeBlocks: false, computeDtype: 'f32', weightDtype: 'f32' } as const;
  const saved = await mkdtemp(join(folder, 'checkpoint-'));
  await saveCheckpoint(saved, { identity, choices, state: first.state }, tunerOf({}));
  await together([late]);
  const resumed = start({}, (await SavedCheckpoint.open(saved)).load(identity, tunerOf({})));
  expect(resumed.state).toEqual(first.state);
  await alone(resumed, 4);
  const [wholeFirst, wholeSecond, wholeLate] = [start({}), start({ settings: { seed: 2, epochs: 1 } }), start({ settings: { seed: 3 } })];
  await alone(wholeFirst, resumed.state.step);
  await alone(wholeSecond, 7);
  await alone(wholeLate, late.state.step);
  expectNear(resumed, wholeFirst);
  expectNear(second, wholeSecond);
  expectNear(late, wholeLate);
});

it('a run whose loss is not finite fails alone and as it was, to the bit for the others', async () => {
  const build = (harmed: boolean) => {
    const broken = start({ settings: { seed: 2 } });
    if (harmed) (broken.options.state.values as Float32Array).fill(NaN);
    return [start({}), broken, start({ settings: { seed: 3 } })];
  };
  const [harmed, healthy] = [build(true), build(false)];
  const outcomes = await together(harmed);
  await together(healthy);
  expect(outcomes.map((outcome) => 'failed' in outcome && outcome.failed.reason)).toEqual([false, 'not_finite', false]);
  expect(harmed[1]?.state.step).toBe(0);
  for (const index of [0, 2]) expect(harmed[index]?.state).toEqual(healthy[index]?.state);
});

it('on wasm, too', async () => {
  const other = await openDevice({ backend: 'wasm' });
  const base = join(folder, 'model');
  using portable = await loadCausalLm(other, { folder: base, config: JSON.parse(await readFile(join(base, 'config.json'), 'utf8')) as unknown, computeDtype: 'f32' });
  const on = (spec: RunSpec) => new Trainer({ ...start(spec).options, model: portable });
  const specs: readonly RunSpec[] = [{}, { settings: { seed: 2 } }, { fields: { kind: 'ia3' } }];
  const [joint, lone] = [specs.map(on), specs.map(on)];
  await together(joint);
  for (const [index, trainer] of lone.entries()) {
    await alone(trainer, 1);
    expectNear(joint[index] as Trainer, trainer);
  }
});

it('stopped between passes it changes nothing', async () => {
  const trainers = [start({}), start({ settings: { seed: 2 } })];
  let asked = 0;
  expect(await stepTogether(trainers, { tokensPerPass: 16, shouldStop: () => ++asked === 2 })).toBeNull();
  expect(trainers.map(({ state }) => state.step)).toEqual([0, 0]);
  expect(trainers.map(({ state }) => state.moments.updates)).toEqual([0, 0]);
});

it('an adapter that cannot share a pass is refused', async () => {
  await expect(together([start({}), start({ fields: { kind: 'prompt-tuning', num_virtual_tokens: 2 } })])).rejects.toMatchObject({ reason: 'not_routable' });
});

it('passes share a pass by width as far as the limit goes', () => {
  const sizes = [{ rows: 1, columns: 16 }, { rows: 2, columns: 8 }, { rows: 1, columns: 24 }, { rows: 1, columns: 8 }, { rows: 9, columns: 8 }, { rows: 2, columns: 16 }];
  expect(packPasses(sizes, 64)).toEqual([[2], [5, 0], [4], [1, 3]]);
  expect(packPasses(sizes, 1)).toEqual([[2], [5], [0], [4], [1], [3]]);
  expect(packPasses(sizes, 1000)).toEqual([[4, 1, 5, 0, 2, 3]]);
});
