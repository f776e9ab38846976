/**
 * What enters the first trained block, kept across epochs in memory and on disk: it changes no bit in the first epoch and next to nothing later, spares the blocks
 * before, and a resumed run equals one that was not stopped, whatever of the examples there is room for.
 */
import { readFileSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { jest } from '@jest/globals';
import { loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { createTuner, fixedStates, parseTunerSpec, type TunerSpec } from '@tunefleet/ml-tuners';
import { collate } from './collate';
import type { TrainingSettings } from './settings';
import { stemCacheBytes } from './stem-cache';
import type { KeptStems } from './stem-store';
import { texts } from './testing';
import { Trainer } from './trainer';
import type { StepResult } from './training-run';
import { startState, type TrainerState } from './trainer-state';

jest.setTimeout(60_000);

const fixtures = fileURLToPath(new URL('../../models/fixtures', import.meta.url));
const settings: TrainingSettings = { seed: 3, epochs: 3, batchSize: 4, learningRate: 5e-3, schedule: 'cosine', warmupRatio: 0.1, weightDecay: 0.01, maxGradNorm: 1 };
const dataset = texts('training', 10);
const validation = texts('validation', 5);
const STEPS_PER_EPOCH = 3;

const TUNERS: Readonly<Record<string, Record<string, unknown>>> = {
  lora: { kind: 'lora', layers_to_transform: [1], target_modules: ['q_proj', 'down_proj', 'c_attn'], lora_dropout: 0.1 },
  head: { kind: 'lora', target_modules: ['lm_head'] },
  full: { kind: 'full', last_blocks: 1 },
  adapter: { kind: 'adapter', target_modules: String.raw`.*\.1\.mlp` },
  side: { kind: 'side-tuning' },
};

let folder = '';
const models = new Map<string, CausalLm>();
async function openBase(name: string, computeDtype: 'f32' | 'bf16' = 'f32'): Promise<CausalLm> {
  const key = `${name} ${computeDtype}`;
  const at = join(fixtures, name);
  const model = models.get(key) ?? (await loadCausalLm(await openDevice({ backend: 'tensorflow' }), { folder: at, config: JSON.parse(readFileSync(join(at, 'config.json'), 'utf8')), computeDtype }));
  models.set(key, model);
  return model;
}
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kept-states-'));
});
afterAll(async () => {
  for (const model of models.values()) model[Symbol.dispose]();
  await rm(folder, { recursive: true, force: true });
});

function specFor(name: string, base: string): TunerSpec {
  const { target_modules: targets, ...fields } = TUNERS[name] as { target_modules?: unknown };
  const own = Array.isArray(targets) ? targets.filter((target) => target === 'lm_head' || (target === 'c_attn') === (base === 'gpt2')) : targets;
  return parseTunerSpec({ ...fields, ...(own === undefined ? {} : { target_modules: own }) });
}

/** @param share of all bytes: kept, and of that on the host */
function trainer(model: CausalLm, spec: TunerSpec, room: { readonly kept: number; readonly onHost: number } | null, { state, microBatchSize = 2 }: { state?: TrainerState; microBatchSize?: number } = {}): Trainer {
  const tuner = createTuner(spec, model);
  const fixed = fixedStates(spec, model);
  if (!fixed) throw new Error('nothing stays as it is');
  const all = [dataset, validation].reduce((sum, each) => sum + stemCacheBytes(each, fixed, model.hiddenSize, model.computeDtype), 0);
  const keptStems: KeptStems | null = room && { untouchedBlocks: fixed.untouchedBlocks, bytes: room.kept * all, hostBytes: room.kept * room.onHost * all, directory: room.onHost < 1 ? folder : null };
  return new Trainer({
    model,
    tuner,
    dataset,
    settings,
    batching: { microBatchSize, recomputeBlocks: false, ...(keptStems ? { keptStems } : {}) },
    state: state ?? startState(tuner.initialValues(1, { model, tokenise: () => new Int32Array() })),
  });
}

async function runOf(training: Trainer, steps = Infinity): Promise<Pick<StepResult, 'loss' | 'gradNorm'>[]> {
  const results: Pick<StepResult, 'loss' | 'gradNorm'>[] = [];
  while (!training.finished && results.length < steps) {
    const step = await training.trainStep();
    if (step) results.push({ loss: step.loss, gradNorm: step.gradNorm });
  }
  return results;
}

const ROOMS = { memory: { kept: 1, onHost: 1 }, 'memory and disk': { kept: 1, onHost: 0.4 }, 'half of it': { kept: 0.5, onHost: 0.5 } };

describe.each(Object.keys(TUNERS))('%s', (name) => {
  test.each([
    ['tied', 'memory', 2],
    ['tied', 'memory and disk', 4],
    ['tied', 'half of it', 2],
    ['gpt2', 'memory', 2],
  ] as const)('on %s, kept in %s, passes of %i: the bits of the first epoch, the mathematics of later ones', async (base, where, microBatchSize) => {
    const model = await openBase(base);
    const spec = specFor(name, base);
    using plain = trainer(model, spec, null, { microBatchSize });
    using kept = trainer(model, spec, ROOMS[where], { microBatchSize });
    const [without, results] = [await runOf(plain), await runOf(kept)];
    expect(results.slice(0, STEPS_PER_EPOCH)).toEqual(without.slice(0, STEPS_PER_EPOCH));
    results.forEach(({ loss, gradNorm }, step) => {
      expect(Math.abs(loss - (without[step]?.loss ?? NaN))).toBeLessThan(1e-5);
      expect(Math.abs(gradNorm / (without[step]?.gradNorm ?? NaN) - 1)).toBeLessThan(1e-3);
    });
    const [again, first] = [await kept.validate(validation), await plain.validate(validation)];
    expect(Math.abs((again?.loss ?? NaN) - (first?.loss ?? NaN))).toBeLessThan(1e-5);
    expect(await readdir(folder)).toEqual([]);
  });
});

test.each(Object.entries(ROOMS))('stopped and resumed with %s, the run has the same bits', async (_where, room) => {
  const model = await openBase('tied');
  const spec = specFor('lora', 'tied');
  using whole = trainer(model, spec, room);
  const expected = await runOf(whole);
  for (const steps of [2, 4, 7]) {
    using first = trainer(model, spec, room);
    await runOf(first, steps);
    const { values, moments, ...rest } = first.state;
    using second = trainer(model, spec, room, { state: { ...rest, values: values.slice(), moments: { m: moments.m.slice(), v: moments.v.slice(), updates: moments.updates } } });
    // Whatever asks first: training data have room before others.
    await second.validate(validation);
    expect(await runOf(second)).toEqual(expected.slice(steps));
    expect(second.state.values).toEqual(whole.state.values);
  }
});

test('an example goes through the first blocks once; one there is no room for in every epoch', async () => {
  const model = await openBase('tied');
  const rows: number[] = [];
  const counting = new Proxy(model, {
    get: (target, key) => {
      const value = Reflect.get(target, key, target) as unknown;
      if (typeof value !== 'function') return value;
      const call = value.bind(target) as (...given: unknown[]) => unknown;
      return key !== 'stems' ? call : (batch: { rows: number }, ...rest: unknown[]) => (rows.push(batch.rows), call(batch, ...rest));
    },
  });
  const spec = specFor('full', 'tied');
  using all = trainer(counting, spec, ROOMS.memory);
  await runOf(all, STEPS_PER_EPOCH);
  const once = rows.length;
  expect(once).toBeGreaterThanOrEqual(5);
  await runOf(all);
  expect(rows).toHaveLength(once);
  rows.length = 0;
  using half = trainer(counting, spec, ROOMS['half of it']);
  await runOf(half, STEPS_PER_EPOCH);
  // Passes that nothing is kept of are not taken apart.
  expect(rows.length).toBeLessThan(once);
  expect(rows.length).toBeGreaterThan(0);
});

test('in bf16 they are kept in bf16, bit for bit; nothing is left on the device', async () => {
  const model = await openBase('tied', 'bf16');
  const spec = specFor('lora', 'tied');
  using plain = trainer(model, spec, null);
  using kept = trainer(model, spec, ROOMS['memory and disk']);
  expect(await runOf(kept, STEPS_PER_EPOCH)).toEqual(await runOf(plain, STEPS_PER_EPOCH));
  const handles = () => model.device.memory.liveHandles - model.device.cachedScalars;
  await runOf(kept, 2);
  const before = handles();
  await runOf(kept);
  expect(handles()).toBe(before);
});

test('examples that share a row and a beginning are found in it, and put into other rows', () => {
  const shared = collate(dataset, Int32Array.of(7, 5, 1), 1400);
  expect(shared.tokens.branches).toBeDefined();
  shared.examples.forEach((example, at) => expect(Array.from(shared.places[at] ?? [], (place) => shared.tokens.ids[place])).toEqual([...dataset.example(example).inputIds]));
});
