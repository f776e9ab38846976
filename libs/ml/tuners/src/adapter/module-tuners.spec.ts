/**
 * Adapter and Side-Tuning against SWIFT, IA3 against PEFT (fixtures of `tools/golden/module_tuners_fixture.py`): folders, logits, gradients and ten steps of training;
 * then what the methods must hold by themselves, and refusals.
 */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeSafetensors, SafetensorsFile } from '@tunefleet/ml-formats';
import type { CausalLm } from '@tunefleet/ml-models';
import { createTuner, loadAdapter, parseTunerSpec, tunerSpecs, type LoadedAdapter, type TunerKind } from '..';
import { fixture, GoldenRun, openBase, PlainAdamW } from '../lora/golden-run';
import { largest, maxDifference, parametersOf, slotsOf, startWith, type Slot } from '../testing';

const CASES = [
  { name: 'swift-adapter', kind: 'adapter', base: 'tied' },
  { name: 'swift-side', kind: 'side-tuning', base: 'tied' },
  { name: 'peft-ia3', kind: 'ia3', base: 'tied' },
  { name: 'peft-ia3-gpt2', kind: 'ia3', base: 'gpt2' },
] as const;

let work = '';
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'module-tuners-'));
});
afterAll(() => rm(work, { recursive: true, force: true }));

describe.each(CASES)('$name', ({ name, kind, base }) => {
  const golden = new GoldenRun(name);
  const fileName = (slot: Slot) => (kind === 'ia3' ? `base_model.model.${slot.name}` : slot.name);

  describe.each(['tensorflow', 'wasm'] as const)('on %s', (backend) => {
    let model: CausalLm;
    let adapter: LoadedAdapter;
    beforeAll(async () => {
      model = await openBase(base, backend);
      adapter = await loadAdapter(model, fixture(name));
    });
    afterAll(() => {
      adapter.dispose();
      model[Symbol.dispose]();
    });

    test('the folder gives the logits of those who wrote it, and leaves the base alone', () => {
      const alone = golden.logits(model);
      expect(adapter.tuner.kind).toBe(kind);
      expect(adapter.notices).toEqual([]);
      expect(maxDifference(golden.logits(model, { adapter: adapter.hook }), golden.floats('logits'))).toBeLessThan(1e-4);
      expect(maxDifference(alone, golden.floats('logits'))).toBeGreaterThan(0.05);
      expect(golden.logits(model)).toEqual(alone);
    });

    test.each([false, true])('loss and every gradient, recomputeBlocks %p', (recomputeBlocks) => {
      const { loss, gradients } = golden.step(model, adapter.tuner, adapter.values, { recomputeBlocks });
      expect(Math.abs(loss - (golden.floats('losses')[0] ?? NaN))).toBeLessThan(1e-5);
      slotsOf(adapter.tuner).forEach((slot, index) => {
        const wanted = golden.floats(`grad.${fileName(slot)}`);
        expect(maxDifference(gradients[index] ?? [], wanted)).toBeLessThan(1e-5 + 2e-4 * largest(wanted));
        expect(largest(wanted)).toBeGreaterThan(1e-5);
      });
    });

    test('ten steps of AdamW end where theirs do', () => {
      const values = adapter.values.slice();
      const fill = (value: number) => new Float64Array(values.length).fill(value);
      const optimiser = new PlainAdamW(values, fill(golden.learningRate), fill(golden.weightDecay));
      const losses = Array.from({ length: 10 }, () => {
        const { loss, gradients } = golden.step(model, adapter.tuner, values);
        optimiser.step(Float32Array.from(gradients.flatMap((gradient) => [...gradient])));
        return loss;
      });
      expect(maxDifference(losses, golden.floats('losses'))).toBeLessThan(2e-4);
      slotsOf(adapter.tuner).forEach((slot) => expect(maxDifference(values.subarray(slot.offset, slot.offset + slot.size), golden.floats(`end.${fileName(slot)}`))).toBeLessThan(2e-3));
    });

    test('saved again it has the same names, shapes and bytes, and reads back the same; nothing is left on the device', async () => {
      const folder = join(work, `${name}-${backend}`);
      const handles = () => model.device.memory.liveHandles - model.device.cachedScalars;
      const before = handles();
      await adapter.tuner.save(adapter.values, folder, { id: 'tiny/base', revision: 'local-1' });
      using theirs = SafetensorsFile.open(join(fixture(name), 'adapter_model.safetensors'));
      using ours = SafetensorsFile.open(join(folder, 'adapter_model.safetensors'));
      expect([...ours.tensors.keys()].sort()).toEqual([...theirs.tensors.keys()].sort());
      for (const key of theirs.tensors.keys()) {
        expect(ours.entry(key).shape).toEqual(theirs.entry(key).shape);
        expect(Buffer.from(ours.read(key)).equals(theirs.read(key))).toBe(true);
      }
      const fields = async (at: string) => Object.keys(JSON.parse(await readFile(join(at, 'adapter_config.json'), 'utf8')) as object).filter((field) => field !== 'peft_version');
      expect(await fields(folder)).toEqual(await fields(fixture(name)));
      const again = await loadAdapter(model, folder);
      expect(again.values).toEqual(adapter.values);
      expect(golden.logits(model, { adapter: again.hook })).toEqual(golden.logits(model, { adapter: adapter.hook }));
      again.dispose();
      golden.step(model, adapter.tuner, adapter.values);
      expect(handles()).toBe(before);
    });
  });

  test('bf16 stays near', async () => {
    using model = await openBase(base, 'tensorflow', 'bf16');
    const adapter = await loadAdapter(model, fixture(name));
    expect(maxDifference(golden.logits(model, { adapter: adapter.hook }), golden.floats('logits'))).toBeLessThan(0.25);
    expect(Math.abs(golden.step(model, adapter.tuner, adapter.values).loss - (golden.floats('losses')[0] ?? NaN))).toBeLessThan(0.1);
    adapter.dispose();
  });

  test('tensors of elsewhere, other shapes, unknown fields', async () => {
    using model = await openBase(base, 'tensorflow');
    using file = SafetensorsFile.open(join(fixture(name), 'adapter_model.safetensors'));
    const tensors = [...file.tensors].map(([key, { dtype, shape }]) => ({ name: key, dtype, shape: [...shape], data: file.read(key).slice() }));
    const config = JSON.parse(await readFile(join(fixture(name), 'adapter_config.json'), 'utf8')) as object;
    const load = async (changed: typeof tensors, fields: object = {}) => {
      const folder = await mkdtemp(join(work, 'changed-'));
      await cp(fixture(name), folder, { recursive: true });
      await writeFile(join(folder, 'adapter_config.json'), JSON.stringify({ ...config, ...fields }));
      await writeFile(join(folder, 'adapter_model.safetensors'), encodeSafetensors(changed));
      return loadAdapter(model, folder);
    };
    const [first, ...others] = tensors as [(typeof tensors)[number], ...typeof tensors];
    await expect(load([{ ...first, name: first.name.replace(/\.(layers|h)\.0\./, '.$1.7.') }, ...others])).rejects.toMatchObject({ code: 'incompatible_artifact', message: expect.stringContaining('belong to no') as unknown });
    await expect(load([{ ...first, name: 'model.strange' }, ...others])).rejects.toMatchObject({ code: 'incompatible_artifact' });
    const known = await load(tensors, { brand_new: 1 });
    expect(known.notices.join()).toContain('brand_new');
    known.dispose();
    const wide = { ...first, shape: [1, 3], data: new Uint8Array(12) };
    await expect(load([wide, ...others])).rejects.toThrow(/it was made for another base model/);
  });
});

test.each([
  ['adapter', { zero_init_last: true }],
  ['ia3', {}],
] as const)('a fresh %s is the base, on every module it may go to', async (kind: TunerKind, fields: object) => {
  using model = await openBase('tied', 'tensorflow');
  const golden = new GoldenRun('swift-adapter');
  const everything = kind === 'ia3' ? { target_modules: 'all-linear' } : { target_modules: String.raw`model\.(norm|layers\.\d+(\.(mlp|self_attn)(\.(down|o)_proj)?)?)` };
  const tuner = createTuner(parseTunerSpec({ kind, ...everything, ...fields }), model);
  const values = tuner.initialValues(3, startWith(model));
  expect(tuner.parameterCount).toBe((tunerSpecs[kind] as { countParameters(spec: unknown, model: unknown): number }).countParameters(parseTunerSpec({ kind, ...everything, ...fields }), model));
  model.device.scope(() => {
    const hook = tuner.bind(model, parametersOf(model.device, tuner, values), null);
    expect(maxDifference(golden.logits(model, { adapter: hook }), golden.logits(model))).toBeLessThan(1e-5);
  });
});

test('factors on inputs of some of several stacked maps', async () => {
  using model = await openBase('tied', 'tensorflow');
  const golden = new GoldenRun('peft-ia3');
  const parts = ['q_proj', 'k_proj', 'v_proj'].map((target) => createTuner(parseTunerSpec({ kind: 'ia3', target_modules: [target], feedforward_modules: [target] }), model));
  const whole = createTuner(parseTunerSpec({ kind: 'ia3', target_modules: ['q_proj', 'k_proj', 'v_proj'], feedforward_modules: ['q_proj', 'k_proj', 'v_proj'] }), model);
  expect(parts.reduce((sum, { parameterCount }) => sum + parameterCount, 0)).toBe(whole.parameterCount);
  const doubled = new Float32Array(whole.parameterCount).fill(2);
  model.device.scope(() => {
    // Twice the input of a map without bias is twice its output.
    const byInput = golden.logits(model, { adapter: whole.bind(model, parametersOf(model.device, whole, doubled), null) });
    const outputs = createTuner(parseTunerSpec({ kind: 'ia3', target_modules: ['q_proj', 'k_proj', 'v_proj'] }), model);
    const byOutput = golden.logits(model, { adapter: outputs.bind(model, parametersOf(model.device, outputs, new Float32Array(outputs.parameterCount).fill(2)), null) });
    expect(maxDifference(byInput, byOutput)).toBeLessThan(1e-4);
    expect(maxDifference(byInput, golden.logits(model))).toBeGreaterThan(0.1);
  });
});

test.each([
  [{ kind: 'adapter', target_modules: ['q_proj'] }, 'tuner.target_modules', 'also names "model.layers.0.self_attn.q_proj", whose output cannot be adapted'],
  [{ kind: 'adapter', target_modules: ['nothing'] }, 'tuner.target_modules', 'names no module of this llama model'],
  [{ kind: 'adapter', dim: 31 }, 'tuner.dim', 'is 31, but this llama model is 32 wide'],
  [{ kind: 'adapter', act_layer: 'cube' }, 'tuner.act_layer', 'must be one of gelu'],
  [{ kind: 'adapter', r: 8 }, 'tuner.r', 'is not a field of the adapter; the fields are dim, target_modules'],
  [{ kind: 'side-tuning', target_modules: ['mlp'] }, 'tuner.target_modules', 'must be a regular expression'],
  [{ kind: 'side-tuning', target_modules: String.raw`.*down_proj` }, 'tuner.target_modules', 'maps 48 to 32 numbers'],
  [{ kind: 'side-tuning', side_module_name: 'fcn4' }, 'tuner.side_module_name', 'look at images'],
  [{ kind: 'ia3', feedforward_modules: ['up_proj'], target_modules: ['q_proj'] }, 'tuner.feedforward_modules', '"up_proj" is none of the targets'],
  [{ kind: 'ia3', target_modules: ['lm_head'] }, 'tuner.target_modules', 'matches no linear map'],
  [{ kind: 'ia3', target_modules: '(' }, 'tuner.target_modules', 'regular expression'],
])('%j is refused', async (fields, param, message) => {
  using model = await openBase('tied', 'tensorflow');
  expect(() => createTuner(parseTunerSpec(fields as unknown), model)).toThrow(expect.objectContaining({ code: 'invalid_input', param, message: expect.stringContaining(message) as unknown }));
});

test('adapters chain where one module lies at the end of another', async () => {
  using model = await openBase('tied', 'tensorflow');
  const golden = new GoldenRun('swift-adapter');
  const at = (...targets: string[]) => createTuner(parseTunerSpec({ kind: 'adapter', adapter_length: 4, target_modules: targets }), model);
  const both = at('mlp', 'down_proj');
  expect(both.parameters.map(({ name }) => name.replace(/\.adapter_default.*/, '')).filter((path, index, all) => all.indexOf(path) === index)).toEqual(
    [0, 1].flatMap((layer) => [`model.layers.${layer}.mlp.down_proj`, `model.layers.${layer}.mlp`]),
  );
  const values = both.initialValues(1, startWith(model));
  model.device.scope(() => {
    const logits = golden.logits(model, { adapter: both.bind(model, parametersOf(model.device, both, values), null) });
    expect(maxDifference(logits, golden.logits(model))).toBeGreaterThan(1e-3);
  });
});
