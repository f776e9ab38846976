/**
 * Full fine-tuning against Transformers and torch.optim.AdamW (fixtures of `tools/golden/full_fixture.py`) on every decoder: ten losses and the length of every gradient,
 * of all blocks and of the last; of some bases also logits, gradients and final weights. Then folders, recomputation, what is kept, refusals.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { encodeSafetensors, SafetensorsFile, SafetensorsFolder } from '@tunefleet/ml-formats';
import type { CausalLm } from '@tunefleet/ml-models';
import { createTuner, loadAdapter, parseTunerSpec, tunerSpecs, type Tuner } from '..';
import { openBase, PlainAdamW } from '../lora/golden-run';
import { largest, logitsWith, maxDifference, parametersOf, slotsOf, startWith, trainingPass, type PassOptions } from '../testing';

const fixtures = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'fixtures', 'full');
const [rows, columns, RATE, DECAY] = [2, 24, 5e-3, 0.1];
const WHOLE = ['tied', 'gpt2', 'qwen3'];
const BASES = [...WHOLE, 'scaled', 'qwen2', 'mistral', 'phi3', 'gemma2', 'gemma3_text'];

let work = '';
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'full-'));
});
afterAll(() => rm(work, { recursive: true, force: true }));

class Golden {
  readonly #arrays: ReadonlyMap<string, ArrayBuffer>;

  constructor(base: string) {
    using file = SafetensorsFile.open(join(fixtures, `${base}.safetensors`));
    this.#arrays = new Map([...file.tensors.keys()].map((key) => [key, file.read(key).slice().buffer]));
  }

  floats = (name: string): Float32Array => new Float32Array(this.#arrays.get(name) as ArrayBuffer);

  names(prefix: string): string[] {
    return [...this.#arrays.keys()].filter((name) => name.startsWith(prefix)).map((name) => name.slice(prefix.length));
  }

  get batch() {
    return { ids: new Int32Array(this.#arrays.get('ids') as ArrayBuffer), rows, columns };
  }

  step(model: CausalLm, tuner: Tuner, values: Float32Array, options: PassOptions = {}) {
    return trainingPass(model, tuner, values, this.batch, new Int32Array(this.#arrays.get('labels') as ArrayBuffer), options);
  }
}

const tunerOf = (model: CausalLm, fields: object = {}): Tuner => createTuner(parseTunerSpec({ kind: 'full', ...fields }), model);

function logits(model: CausalLm, golden: Golden, tuner: Tuner, values: Float32Array): Float32Array {
  return model.device.scope(() => logitsWith(model, golden.batch, { adapter: tuner.bind(model, parametersOf(model.device, tuner, values), null) }));
}

describe.each(BASES)('%s', (base) => {
  const golden = new Golden(base);

  test.each([
    ['', {}],
    ['last.', { last_blocks: 1 }],
  ])('%sten steps are those of torch', async (prefix, fields) => {
    using model = await openBase(base, 'tensorflow');
    const tuner = tunerOf(model, fields);
    expect(tuner.parameters.map(({ name }) => name).sort()).toEqual(golden.names(`${prefix}norm.`).sort());
    const values = tuner.initialValues(0, startWith(model));
    const slots = slotsOf(tuner);
    const { gradients } = golden.step(model, tuner, values);
    for (const [index, { name }] of slots.entries()) {
      const norm = golden.floats(`${prefix}norm.${name}`)[0] ?? NaN;
      expect([name, Math.abs(Math.hypot(...(gradients[index] ?? [])) - norm) < 2e-4 * Math.max(norm, 1e-2)]).toEqual([name, true]);
    }
    const decays = Float32Array.from(tuner.parameters.flatMap(({ shape, optimiser }) => new Array<number>(shape.reduce((a, b) => a * b, 1)).fill(optimiser?.weightDecay === false ? 0 : DECAY)));
    const adamW = new PlainAdamW(values, new Float32Array(values.length).fill(RATE), decays);
    for (const wanted of golden.floats(`${prefix}losses`)) {
      const step = golden.step(model, tuner, values);
      expect(Math.abs(step.loss - wanted)).toBeLessThan(2e-4);
      adamW.step(Float32Array.from(step.gradients.flatMap((each) => [...each])));
    }
    if (prefix !== '' || !WHOLE.includes(base)) return;
    for (const { name, offset, size } of slots) {
      const slope = golden.floats(`grad.${name}`);
      // On a key's bias no loss depends: its gradient is noise, which Adam makes steps of.
      const [ours, theirs] = [values.subarray(offset, offset + size), golden.floats(`end.${name}`)].map((all) => all.filter((_, i) => Math.abs(slope[i] ?? NaN) > 1e-6)) as [Float32Array, Float32Array];
      expect([name, ours.length > size / 4, maxDifference(ours, theirs) < 1e-3]).toEqual([name, true, true]);
    }
  });

  test('the fresh tuner is the base, in the checkpoint\'s own layout', async () => {
    using model = await openBase(base, 'tensorflow');
    const tuner = tunerOf(model);
    const values = tuner.initialValues(0, startWith(model));
    using file = SafetensorsFolder.open(join(fixtures, '..', '..', '..', 'models', 'fixtures', base));
    const floats = (name: string) => new Float32Array(file.read(name).slice().buffer);
    for (const { name, offset, size } of slotsOf(tuner)) {
      if (file.entry(name).dtype !== 'F32') continue;
      // A norm that is stored less one has been made whole and taken back.
      expect([name, maxDifference(values.subarray(offset, offset + size), floats(name)) < (base.startsWith('gemma') ? 2e-7 : 0) + Number.MIN_VALUE]).toEqual([name, true]);
    }
    expect(maxDifference(logits(model, golden, tuner, values), logitsWith(model, golden.batch))).toBeLessThan(1e-4);
  });
});

describe.each(WHOLE)('%s, number by number', (base) => {
  const golden = new Golden(base);

  test.each(['tensorflow', 'wasm'] as const)('logits and every gradient on %s; recomputed blocks and wanted rows give the same', async (backend) => {
    using model = await openBase(base, backend);
    const tuner = tunerOf(model);
    const values = tuner.initialValues(0, startWith(model));
    expect(maxDifference(logits(model, golden, tuner, values), golden.floats('logits'))).toBeLessThan(2e-4);
    const handles = () => model.device.memory.liveHandles - model.device.cachedScalars;
    const { gradients } = golden.step(model, tuner, values);
    const before = handles();
    const again = golden.step(model, tuner, values, { recomputeBlocks: true });
    expect(handles()).toBe(before);
    for (const [index, { name }] of slotsOf(tuner).entries()) {
      const wanted = golden.floats(`grad.${name}`);
      expect([name, maxDifference(gradients[index] ?? [], wanted) < 1e-4 + 1e-3 * largest(wanted)]).toEqual([name, true]);
      expect(maxDifference(again.gradients[index] ?? [], gradients[index] ?? [])).toBeLessThan(1e-5 + 1e-4 * largest(wanted));
    }
  });

  test('saved and read again it is the same; bf16 stays near', async () => {
    using model = await openBase(base, 'tensorflow');
    const tuner = tunerOf(model, { last_blocks: 1 });
    const values = tuner.initialValues(0, startWith(model)).map((value, i) => value + 0.05 * Math.sin(i));
    const folder = await mkdtemp(join(work, 'saved-'));
    await tuner.save(values, folder, { id: `tiny/${base}`, revision: 'local' });
    const wanted = logits(model, golden, tuner, values);
    const handles = () => model.device.memory.liveHandles - model.device.cachedScalars;
    const before = handles();
    const adapter = await loadAdapter(model, folder);
    expect(adapter.values).toEqual(values);
    expect(adapter.tuner.kind).toBe('full');
    expect(logitsWith(model, golden.batch, { adapter: adapter.hook })).toEqual(wanted);
    const twice = await mkdtemp(join(work, 'twice-'));
    await adapter.tuner.save(adapter.values, twice, { id: `tiny/${base}`, revision: 'local' });
    for (const name of ['adapter_config.json', 'adapter_model.safetensors', 'README.md']) expect((await readFile(join(twice, name))).equals(await readFile(join(folder, name)))).toBe(true);
    adapter.dispose();
    expect(handles()).toBe(before);

    using half = await openBase(base, 'tensorflow', 'bf16');
    const whole = tunerOf(half);
    const start = whole.initialValues(0, startWith(half));
    expect(Math.abs(golden.step(half, whole, start).loss - (golden.floats('losses')[0] ?? NaN))).toBeLessThan(0.1);
    const loaded = await loadAdapter(half, folder);
    expect(maxDifference(logitsWith(half, golden.batch, { adapter: loaded.hook }), wanted)).toBeLessThan(0.6);
    loaded.dispose();
  });
});

test('of the blocks below the last ones nothing is kept', async () => {
  using model = await openBase('tied', 'tensorflow');
  const { device } = model;
  const many = { ids: Int32Array.from({ length: 64 * columns }, (_, i) => (i * 7) % 64), rows: 64, columns };
  const keptBy = (fields: object): number => {
    const tuner = tunerOf(model, fields);
    const values = tuner.initialValues(0, startWith(model));
    device.resetPeak();
    const before = device.memory.liveBytes;
    trainingPass(model, tuner, values, many, many.ids);
    return device.memory.peakBytes - before;
  };
  const spec = parseTunerSpec({ kind: 'full', last_blocks: 1 });
  expect((tunerSpecs.full.untouchedBlocks as (spec: unknown, model: unknown) => number)(spec, model)).toBe(1);
  expect(keptBy({ last_blocks: 1 })).toBeLessThan(0.75 * keptBy({}));
});

test('damaged and foreign folders', async () => {
  using model = await openBase('tied', 'tensorflow');
  const tuner = tunerOf(model, { last_blocks: 1, train_norms: false });
  const values = tuner.initialValues(0, startWith(model));
  const folder = await mkdtemp(join(work, 'damaged-'));
  await tuner.save(values, folder, { id: 'tiny/tied', revision: 'local' });
  const config = JSON.parse(await readFile(join(folder, 'adapter_config.json'), 'utf8')) as Record<string, unknown>;
  expect(config).toEqual({ base_model_name_or_path: 'tiny/tied', last_blocks: 1, revision: null, train_embeddings: null, train_head: null, train_norms: false, tunefleet_type: 'FULL' });
  const rewrite = (change: object) => writeFile(join(folder, 'adapter_config.json'), JSON.stringify({ ...config, ...change }));
  await rewrite({ last_blocks: 2 });
  await expect(loadAdapter(model, folder)).rejects.toMatchObject({ code: 'incompatible_artifact', message: expect.stringContaining('7 tensors are missing') as unknown });
  await rewrite({ last_blocks: 3 });
  await expect(loadAdapter(model, folder)).rejects.toThrow('last_blocks: is 3, but this llama model has 2 blocks');
  await rewrite({ tunefleet_type: 'OTHER' });
  await expect(loadAdapter(model, folder)).rejects.toMatchObject({ code: 'incompatible_artifact' });
  await rewrite({});
  await writeFile(join(folder, 'adapter_model.safetensors'), encodeSafetensors([{ name: 'x', dtype: 'F32', shape: [1], data: new Uint8Array(4) }]));
  await expect(loadAdapter(model, folder)).rejects.toThrow('tensors are missing');
});

test.each([
  [{ last_blocks: 3 }, 'tuner.last_blocks', 'is 3, but this llama model has 2 blocks'],
  [{ last_blocks: 1, train_embeddings: true }, 'tuner.train_embeddings', 'lies below the last blocks'],
  [{ last_blocks: 1, train_head: true }, 'tuner.train_head', 'is its embedding table, which is not trained'],
  [{ train_head: false }, 'tuner.train_head', 'is its embedding table, which is trained'],
  [{ r: 8 }, 'tuner.r', 'is not a field of full fine-tuning; the fields are last_blocks, train_embeddings, train_head, train_norms'],
])('%j is refused', async (fields, param, message) => {
  using model = await openBase('tied', 'tensorflow');
  expect(() => tunerOf(model, fields)).toThrow(expect.objectContaining({ code: 'invalid_input', param, message: expect.stringContaining(message) as unknown }));
});
