/**
 * ResTuning through the trainer: ten steps as SWIFT's own classes and torch make them (`tools/golden/restuning*_fixture.py`), and hidden states that are kept across
 * epochs: they change no bit where they are computed in the same passes, spare the blocks later on, and a resumed run equals one that was not stopped.
 */
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { jest } from '@jest/globals';
import { PackedDataset } from '@tunefleet/ml-data';
import { SafetensorsFile } from '@tunefleet/ml-formats';
import { loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { createTuner, loadAdapter, parseTunerSpec, type Tuner } from '@tunefleet/ml-tuners';
import { planPass } from './batch-plan';
import { SavedCheckpoint, saveCheckpoint } from './checkpoint';
import type { Batching, TrainingSettings } from './settings';
import { stemCacheBytes } from './stem-cache';
import { texts } from './testing';
import { Trainer } from './trainer';
import type { StepResult } from './training-run';
import { startState, type TrainerState } from './trainer-state';

jest.setTimeout(60_000);

const libraries = fileURLToPath(new URL('../../', import.meta.url));
const BASE = join(libraries, 'models', 'fixtures', 'tied');
const FIXTURES = join(libraries, 'tuners', 'fixtures');

async function openBase(backend: 'tensorflow' | 'wasm' = 'tensorflow', computeDtype: 'f32' | 'bf16' = 'f32'): Promise<CausalLm> {
  return loadCausalLm(await openDevice({ backend }), { folder: BASE, config: JSON.parse(readFileSync(join(BASE, 'config.json'), 'utf8')), computeDtype });
}

describe.each(['swift-restuning/plain', 'swift-restuning/mixed', 'restuning-branches/adapter', 'restuning-branches/prefix'])('%s: ten steps', (name) => {
  using file = SafetensorsFile.open(join(FIXTURES, name, 'golden.safetensors'));
  const bytes = (key: string) => file.read(key).slice().buffer;
  const golden = new Map([...file.tensors.keys()].map((key) => [key, bytes(key)]));
  const floats = (key: string) => new Float32Array(golden.get(key) ?? new ArrayBuffer(0));
  const dataset = new PackedDataset('golden', {
    lengths: Int32Array.of(24, 24),
    ids: new Int32Array(golden.get('ids') ?? new ArrayBuffer(0)),
    learned: Uint8Array.from(new Int32Array(golden.get('labels') ?? new ArrayBuffer(0)), (label) => (label === -100 ? 0 : 1)),
  });

  it.each([
    ['tensorflow', true],
    ['tensorflow', false],
    ['wasm', true],
  ] as const)('on %s, stems kept %p: losses and final weights are those of the reference', async (backend, keepStems) => {
    using model = await openBase(backend);
    const { tuner, values, dispose } = await loadAdapter(model, join(FIXTURES, name));
    const state = startState(values.slice());
    const trainer = new Trainer({
      model,
      tuner,
      dataset,
      settings: { seed: 1, epochs: 10, batchSize: 2, learningRate: 1e-2, schedule: 'constant', warmupRatio: 0, weightDecay: 0.01, maxGradNorm: 1e9 },
      batching: { microBatchSize: 2, recomputeBlocks: false, ...keeping(keepStems) },
      state,
    });
    for (const expected of floats('losses')) expect(Math.abs(((await trainer.trainStep())?.loss ?? NaN) - expected)).toBeLessThan(1e-4);
    let at = 0;
    for (const { name: parameter } of tuner.parameters) {
      const expected = floats(`final.${parameter}`);
      const got = state.values.subarray(at, (at += expected.length));
      // A step moves a value by up to 0.01, and where gradients are near zero in either direction.
      expect(expected.every((value, i) => Math.abs(value - (got[i] ?? NaN)) < 2e-3)).toBe(true);
    }
    expect(at).toBe(state.values.length);
    dispose();
  });
});

describe('stems kept across epochs', () => {
  const settings: TrainingSettings = { seed: 3, epochs: 3, batchSize: 4, learningRate: 5e-3, schedule: 'cosine', warmupRatio: 0.1, weightDecay: 0.01, maxGradNorm: 1 };
  const dataset = texts('training', 10);
  const validation = texts('validation', 5);
  let folder = '';
  let model: CausalLm;
  let tuner: Tuner;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'bypass-run-'));
    model = await openBase();
    tuner = createTuner(parseTunerSpec({ kind: 'restuning-bypass', stem_stride: 2 }), model);
  });
  afterAll(async () => {
    model[Symbol.dispose]();
    await rm(folder, { recursive: true, force: true });
  });

  const fresh = () => startState(tuner.initialValues(1, { model, tokenise: () => new Int32Array() }));
  const train = (options: { readonly keepStems: boolean; readonly microBatchSize?: number; readonly on?: CausalLm; readonly state?: TrainerState }) => {
    const { keepStems, microBatchSize = 2, on = model, state = fresh() } = options;
    return new Trainer({ model: on, tuner, dataset, settings, batching: { microBatchSize, recomputeBlocks: false, ...keeping(keepStems) }, state });
  };
  const runOf = async (trainer: Trainer, steps = Infinity): Promise<Pick<StepResult, 'loss' | 'gradNorm'>[]> => {
    const results: Pick<StepResult, 'loss' | 'gradNorm'>[] = [];
    while (!trainer.finished && results.length < steps) {
      const step = await trainer.trainStep();
      if (step) results.push({ loss: step.loss, gradNorm: step.gradNorm });
    }
    return results;
  };

  it.each([1, 2, 4])('the first epoch has the bits of one without, later ones its mathematics, in passes of %i', async (microBatchSize) => {
    const [without, kept] = [await runOf(train({ keepStems: false, microBatchSize })), await runOf(train({ keepStems: true, microBatchSize }))];
    expect(kept.slice(0, 3)).toEqual(without.slice(0, 3));
    kept.forEach(({ loss, gradNorm }, step) => {
      expect(Math.abs(loss - (without[step]?.loss ?? NaN))).toBeLessThan(1e-5);
      expect(Math.abs(gradNorm - (without[step]?.gradNorm ?? NaN))).toBeLessThan(1e-4);
    });
  });

  it('every example goes through the blocks once', async () => {
    const passes: number[] = [];
    const counting = new Proxy(model, {
      get: (target, key) => {
        const value = Reflect.get(target, key, target) as unknown;
        if (typeof value !== 'function') return value;
        const call = value.bind(target) as (...given: unknown[]) => unknown;
        return key !== 'stems' ? call : (batch: { rows: number }, ...rest: unknown[]) => (passes.push(batch.rows), call(batch, ...rest));
      },
    });
    const trainer = train({ keepStems: true, on: counting });
    await runOf(trainer, 3);
    // Two batches of 4 in two passes each, and one of 2.
    expect(passes).toHaveLength(5);
    await runOf(trainer);
    expect(passes).toHaveLength(5);
    const [first, second] = [await trainer.validate(validation), await trainer.validate(validation)];
    expect(passes).toHaveLength(5 + planPass(validation.lengths, 2).length);
    expect(second?.loss).toBe(first?.loss);
    const without = await train({ keepStems: false, state: trainer.state }).validate(validation);
    expect(first?.loss).toBe(without?.loss);
    expect(first?.correct).toBe(without?.correct);
  });

  it.each([1, 4, 5])('stopped after step %i and resumed, the run has the same bits', async (steps) => {
    const whole = train({ keepStems: true });
    const expected = await runOf(whole);
    const interrupted = train({ keepStems: true });
    await runOf(interrupted, steps);
    const dir = await mkdtemp(join(folder, 'ckpt-'));
    const identity = { model: 'tied', dataset: dataset.fingerprint, settings: 's' };
    const choices = { computeDtype: 'f32', weightDtype: 'f32', microBatchSize: 2, recomputeBlocks: false, keptStemBytes: 1 << 20 } as const;
    await saveCheckpoint(dir, { identity, choices, state: interrupted.state as TrainerState }, tuner);
    const saved = await SavedCheckpoint.open(dir);
    const { keptStemBytes: bytes = 0, ...passes } = saved.choices;
    expect(bytes).toBe(1 << 20);
    const resumed = new Trainer({ model, tuner, dataset, settings, batching: { ...passes, keptStems: { untouchedBlocks: 0, bytes, hostBytes: bytes, directory: null } }, state: saved.load(identity, tuner) });
    expect(await runOf(resumed)).toEqual(expected.slice(steps));
    expect(resumed.state.values).toEqual(whole.state.values);
  });

  it('a stop before the blocks of another group changes nothing', async () => {
    // The last step of the second epoch is a random rest, whose examples were in other passes before.
    const first = train({ keepStems: true });
    await runOf(first, 5);
    const before = first.state.values.slice();
    const resumed = train({ keepStems: true, state: { ...first.state } });
    let asked = 0;
    expect(await resumed.trainStep(() => ++asked > 1)).toBeNull();
    expect(asked).toBe(2);
    expect(resumed.state.values).toEqual(before);
    expect(resumed.state.step).toBe(5);
  });

  it('in bf16 they are kept in bf16, bit for bit', async () => {
    using narrow = await openBase('tensorflow', 'bf16');
    const [without, kept] = [await runOf(train({ keepStems: false, on: narrow }), 3), await runOf(train({ keepStems: true, on: narrow }), 3)];
    expect(kept).toEqual(without);
  });

  it('nothing is left on the device, and the host bytes are known before', async () => {
    const trainer = train({ keepStems: true });
    await runOf(trainer, 4);
    const { device } = model;
    const handles = device.memory.liveHandles - device.cachedScalars;
    await runOf(trainer);
    expect(device.memory.liveHandles - device.cachedScalars).toBe(handles);
    const lossRows = Array.from({ length: dataset.length }, (_, i) => dataset.example(i).labels.filter((label, position) => position > 0 && label !== -100).length);
    const rows = lossRows.reduce((sum, count) => sum + count, 0);
    expect(stemCacheBytes(dataset, { states: 2, rows: 'learned' }, 32, 'bf16')).toBe(rows * 2 * 32 * 2);
  });
});

function keeping(on: boolean): Pick<Batching, 'keptStems'> {
  return on ? { keptStems: { untouchedBlocks: 0, bytes: Infinity, hostBytes: Infinity, directory: null } } : {};
}
