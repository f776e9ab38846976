/**
 * LoRA's variants against PEFT (fixtures of `tools/golden/lora_family.py`): logits, loss, every gradient, ten AdamW steps; then folders, fresh adapters, recomputation,
 * bf16 and what is left on the device.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SafetensorsFile } from '@tunefleet/ml-formats';
import type { CausalLm } from '@tunefleet/ml-models';
import { createTuner, loadAdapter, parseTunerSpec, type LoadedAdapter, type ParameterOptimiser } from '..';
import { startWith } from '../testing';
import { fixture, GoldenRun, largest, maxDifference, openBase, parametersOf, PlainAdamW } from './golden-run';
import { sizeOf, transposed, type LoraParameter } from './parameters';

interface Variant {
  readonly name: string;
  readonly base: string;
  /** The tuner PEFT made, as our users ask for it. */
  readonly spec: Readonly<Record<string, unknown>>;
  /** Endings of parameters whose start values follow from the base. */
  readonly deterministic: readonly string[];
}

const VARIANTS: readonly Variant[] = [
  {
    name: 'peft-dora',
    base: 'tied',
    spec: { r: 4, lora_alpha: 6, use_dora: true, target_modules: ['q_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'], rank_pattern: { o_proj: 2 } },
    deterministic: ['lora_magnitude_vector', 'lora_B.weight'],
  },
  { name: 'peft-tables', base: 'scaled', spec: { r: 4, lora_alpha: 6, target_modules: ['q_proj', 'embed_tokens', 'lm_head'] }, deterministic: ['lora_B.weight', 'embedding_A'] },
  { name: 'peft-saved', base: 'scaled', spec: { r: 4, lora_alpha: 6, target_modules: ['v_proj'], modules_to_save: ['embed_tokens', 'lm_head'] }, deterministic: ['embed_tokens.weight', 'lm_head.weight'] },
  { name: 'peft-norms', base: 'tied', spec: { r: 4, lora_alpha: 6, target_modules: ['v_proj'], modules_to_save: ['input_layernorm', 'model.norm'] }, deterministic: ['input_layernorm.weight', 'model.norm.weight'] },
  { name: 'peft-norms-gpt2', base: 'gpt2', spec: { r: 4, lora_alpha: 6, target_modules: ['c_attn'], modules_to_save: ['ln_1', '0.ln_2', 'ln_f'] }, deterministic: ['ln_1.weight', 'ln_2.bias', 'ln_f.bias'] },
  { name: 'peft-norms-gemma2', base: 'gemma2', spec: { r: 4, lora_alpha: 6, target_modules: ['q_proj'], modules_to_save: ['pre_feedforward_layernorm', 'lm_head'] }, deterministic: ['pre_feedforward_layernorm.weight', 'lm_head.weight'] },
  { name: 'peft-tokens', base: 'tied', spec: { r: 4, lora_alpha: 6, target_modules: ['v_proj'], trainable_token_indices: [1, 5, 9] }, deterministic: ['tokens_delta'] },
  { name: 'peft-scaled-embedding', base: 'gemma2', spec: { r: 4, lora_alpha: 6, target_modules: ['o_proj', 'embed_tokens'] }, deterministic: ['embedding_A'] },
  { name: 'peft-lora-bias', base: 'qwen2', spec: { r: 4, lora_alpha: 6, target_modules: ['q_proj', 'down_proj'], lora_bias: true }, deterministic: ['lora_B.bias', 'lora_B.weight'] },
  { name: 'peft-bias-all', base: 'qwen2', spec: { r: 4, lora_alpha: 6, target_modules: ['q_proj', 'down_proj'], bias: 'all' }, deterministic: ['base_layer.bias', 'k_proj.bias', 'v_proj.bias'] },
  { name: 'peft-bias-lora-only', base: 'qwen2', spec: { r: 4, lora_alpha: 6, target_modules: ['q_proj', 'down_proj'], bias: 'lora_only' }, deterministic: ['base_layer.bias'] },
  { name: 'peft-tied-saved', base: 'tied', spec: { r: 4, lora_alpha: 6, target_modules: ['q_proj'], modules_to_save: ['embed_tokens'], ensure_weight_tying: true }, deterministic: ['embed_tokens.weight'] },
  {
    name: 'peft-loraplus',
    base: 'scaled',
    spec: { r: 4, lora_alpha: 6, use_dora: false, target_modules: ['q_proj', 'embed_tokens'], loraplus_lr_ratio: 4, loraplus_lr_embedding: 1e-4 },
    deterministic: ['lora_B.weight'],
  },
  { name: 'peft-loraplus-dora', base: 'tied', spec: { r: 4, lora_alpha: 6, use_dora: true, target_modules: ['v_proj'], loraplus_lr_ratio: 4 }, deterministic: ['lora_magnitude_vector'] },
];

let work = '';
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'lora-family-'));
});
afterAll(() => rm(work, { recursive: true, force: true }));

describe.each(VARIANTS)('$name', ({ name, base, spec, deterministic }) => {
  const golden = new GoldenRun(name);
  const tunerSpec = parseTunerSpec({ kind: 'lora', ...spec });

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

    test('the folder of PEFT gives its logits', () => {
      expect(maxDifference(golden.logits(model, { adapter: adapter.hook }), golden.floats('logits'))).toBeLessThan(2e-4);
      expect(maxDifference(golden.logits(model), golden.floats('logits'))).toBeGreaterThan(0.1);
    });

    test.each([false, true])('loss and every gradient are those of PEFT, recomputeBlocks %p', (recomputeBlocks) => {
      const { loss, gradients } = golden.step(model, adapter.tuner, adapter.values, { recomputeBlocks });
      expect(Math.abs(loss - (golden.floats('losses')[0] ?? NaN))).toBeLessThan(2e-5);
      expect(adapter.tuner.parameters).toHaveLength(golden.names.filter((key) => key.startsWith('grad.')).length);
      adapter.tuner.parameters.forEach((parameter, index) => {
        const wanted = golden.ofParameter('grad.', parameter as LoraParameter);
        expect(maxDifference(gradients[index] ?? [], wanted)).toBeLessThan(2e-5 + 2e-4 * largest(wanted));
      });
    });

    // One backend is enough for what only adds up gradients.
    (backend === 'tensorflow' ? test : test.skip)('ten steps of AdamW end where PEFT ends (on one backend only: gradients are held on both, and wasm is slow)', () => {
      const values = adapter.values.slice();
      const perElement = (of: (optimiser: ParameterOptimiser) => number) => createTuner(tunerSpec, model).parameters.flatMap((parameter) => new Array<number>(sizeOf(parameter)).fill(of(parameter.optimiser ?? {})));
      const rates = perElement(({ learningRate, rateFactor = 1 }) => learningRate ?? rateFactor * golden.learningRate);
      const optimiser = new PlainAdamW(values, rates, perElement(({ weightDecay }) => (weightDecay === false ? 0 : golden.weightDecay)));
      const losses = Array.from({ length: 10 }, () => {
        const { loss, gradients } = golden.step(model, adapter.tuner, values);
        optimiser.step(Float32Array.from(gradients.flatMap((gradient) => [...gradient])));
        return loss;
      });
      expect(maxDifference(losses, golden.floats('losses'))).toBeLessThan(1e-3);
      let at = 0;
      for (const parameter of adapter.tuner.parameters) {
        const ours = values.slice(at, (at += sizeOf(parameter)));
        expect(maxDifference(ours, golden.ofParameter('end.', parameter as LoraParameter))).toBeLessThan(2e-3);
      }
      expect(losses[9]).toBeLessThan((losses[0] ?? NaN) - 0.05);
    });

    test('saved and read again it is the same, under the names and shapes PEFT wrote', async () => {
      const folder = join(work, `${name}-${backend}`);
      await adapter.tuner.save(adapter.values, folder, { id: `tiny/${base}`, revision: 'local-1' });
      const again = await loadAdapter(model, folder);
      expect(again.values).toEqual(adapter.values);
      expect(golden.logits(model, { adapter: again.hook })).toEqual(golden.logits(model, { adapter: adapter.hook }));
      again.dispose();
      using theirs = SafetensorsFile.open(join(fixture(name), 'adapter_model.safetensors'));
      using ours = SafetensorsFile.open(join(folder, 'adapter_model.safetensors'));
      // PEFT writes copies of the base's own tables along, which no reader needs.
      const keys = [...theirs.tensors.keys()].filter((key) => !key.endsWith('base_layer.weight'));
      expect([...ours.tensors.keys()].sort()).toEqual(keys.sort());
      for (const key of keys) expect([key, ours.entry(key).shape, Buffer.from(ours.read(key)).equals(theirs.read(key))]).toEqual([key, theirs.entry(key).shape, true]);
      const configs = await Promise.all([fixture(name), folder].map(async (each) => JSON.parse(await readFile(join(each, 'adapter_config.json'), 'utf8')) as Record<string, unknown>));
      // Norms are named by their paths, which mean the same whatever else the names would match.
      const renamed = configs[0]?.['ensure_weight_tying'] === true || name.startsWith('peft-norms');
      for (const field of ['use_dora', 'lora_bias', 'bias', ...(renamed ? [] : ['modules_to_save']), 'trainable_token_indices', 'r', 'lora_alpha']) expect([field, configs[1]?.[field]]).toEqual([field, configs[0]?.[field]]);
    });

    test('a fresh adapter has the shapes and the determined values of PEFT, changes nothing, and is a function of the seed', () => {
      const tuner = createTuner(tunerSpec, model);
      const values = tuner.initialValues(5, startWith(model));
      expect(tuner.initialValues(5, startWith(model))).toEqual(values);
      let at = 0;
      for (const parameter of tuner.parameters as readonly LoraParameter[]) {
        const ours = values.slice(at, (at += sizeOf(parameter)));
        const theirs = golden.ofParameter('start.', parameter);
        expect([parameter.name, ours.length]).toEqual([parameter.name, theirs.length]);
        if (deterministic.some((ending) => parameter.name.endsWith(ending))) expect([parameter.name, maxDifference(ours, theirs) < 1e-5 + 1e-5 * largest(theirs)]).toEqual([parameter.name, true]);
      }
      model.device.scope(() => {
        const hook = tuner.bind(model, parametersOf(model, tuner, values), null);
        expect(maxDifference(golden.logits(model, { adapter: hook }), golden.logits(model))).toBe(0);
      });
    });

    test('nothing is left on the device', async () => {
      const { device } = model;
      const use = async () => {
        golden.step(model, adapter.tuner, adapter.values);
        golden.step(model, adapter.tuner, adapter.values, { recomputeBlocks: true });
        golden.logits(model, { adapter: adapter.hook });
        createTuner(tunerSpec, model).initialValues(1, startWith(model));
        (await loadAdapter(model, fixture(name))).dispose();
        return device.memory.liveHandles - device.cachedScalars;
      };
      expect(await use()).toBe(await use());
    });
  });

  test('bf16: logits and gradients stay close to PEFT in f32', async () => {
    using model = await openBase(base, 'tensorflow', 'bf16');
    const adapter = await loadAdapter(model, fixture(name));
    expect(maxDifference(golden.logits(model, { adapter: adapter.hook }), golden.floats('logits'))).toBeLessThan(0.4);
    const { gradients } = golden.step(model, adapter.tuner, adapter.values);
    adapter.tuner.parameters.forEach((parameter, index) => {
      const wanted = golden.ofParameter('grad.', parameter as LoraParameter);
      expect([parameter.name, maxDifference(gradients[index] ?? [], wanted) < 0.2 * largest(wanted)]).toEqual([parameter.name, true]);
    });
    adapter.dispose();
  });
});

test('an embedding and a tied head share one pair: its gradient is the sum of those PEFT gives the two views of it', async () => {
  const golden = new GoldenRun('peft-tied');
  using model = await openBase('tied', 'tensorflow');
  const adapter = await loadAdapter(model, fixture('peft-tied'));
  expect(maxDifference(golden.logits(model, { adapter: adapter.hook }), golden.floats('logits'))).toBeLessThan(2e-4);
  const tuner = createTuner(parseTunerSpec({ kind: 'lora', r: 4, lora_alpha: 6, target_modules: ['q_proj', 'embed_tokens'], ensure_weight_tying: true }), model);
  expect(adapter.tuner.parameters).toEqual(tuner.parameters);
  const { loss, gradients } = golden.step(model, tuner, adapter.values);
  expect(Math.abs(loss - (golden.floats('losses')[0] ?? NaN))).toBeLessThan(2e-5);
  (tuner.parameters as readonly LoraParameter[]).forEach((parameter, index) => {
    const own = golden.ofParameter('grad.', parameter);
    const other = parameter.name.endsWith('embedding_B') ? golden.floats('grad.lm_head.lora_A.weight') : parameter.name.endsWith('embedding_A') ? transposed(golden.floats('grad.lm_head.lora_B.weight'), 64, 4) : new Float32Array(own.length);
    const wanted = own.map((value, i) => value + (other[i] ?? NaN));
    expect([parameter.name, maxDifference(gradients[index] ?? [], wanted) < 2e-5 + 2e-4 * largest(wanted)]).toEqual([parameter.name, true]);
  });
  const folder = join(work, 'peft-tied');
  await adapter.tuner.save(adapter.values, folder, { id: 'tiny/tied', revision: 'local' });
  const again = await loadAdapter(model, folder);
  expect(golden.logits(model, { adapter: again.hook })).toEqual(golden.logits(model, { adapter: adapter.hook }));
  for (const each of [again, adapter]) each.dispose();
});
