/** Several adapters at once: against PEFT and SWIFT (fixture of `tools/golden/composed_fixture.py`), and by what must hold of any, on every decoder. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SafetensorsFile } from '@tunefleet/ml-formats';
import { architectureSpecs, loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import { headOf, type ModelHook } from '@tunefleet/ml-nn';
import { headLogits, openDevice, OpProfile, type Device } from '@tunefleet/ml-tensor';
import { openAdapter, type LoadedAdapter } from '../loaded-adapter';
import { createTuner, loadAdapter } from '../registry';
import { parseTunerSpec } from '../spec-registry';
import { logitsWith, maxDifference, startWith } from '../testing';
import type { Tuner } from '../tuner';
import { composeHooks } from './compose-hooks';

const libraries = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const NAMES = ['tied', ...Object.keys(architectureSpecs).filter((type) => type !== 'llama')];

let device: Device;
beforeAll(async () => {
  device = await openDevice({ backend: 'tensorflow' });
});

describe.each(NAMES)('%s', (name) => {
  const folder = join(libraries, 'models', 'fixtures', name);
  const batch = { ids: Int32Array.from({ length: 48 }, (_, index) => (index * 29 + 7) % 64), rows: 2, columns: 24 };
  let model: CausalLm;
  const adapters: LoadedAdapter[] = [];
  beforeAll(async () => {
    model = await loadCausalLm(device, { folder, config: JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')), computeDtype: 'f32' });
    logitsWith(model, batch); // tables that the model keeps
  });
  afterAll(() => {
    for (const adapter of adapters) adapter.dispose();
    model[Symbol.dispose]();
  });

  const opened = (fields: object, values?: (tuner: Tuner) => Float32Array): ModelHook => {
    const tuner = createTuner(parseTunerSpec(fields), model);
    const adapter = openAdapter(model, tuner, values?.(tuner) ?? tuner.initialValues(3, startWith(model)).map((value, index) => value + 0.05 * Math.sin(index)));
    adapters.push(adapter);
    return adapter.hook;
  };
  /** And leaves nothing on the device. */
  const logits = (...parts: readonly (ModelHook | readonly [ModelHook, number])[]) => {
    const before = device.memory.liveHandles - device.cachedScalars;
    const given = parts.map((part, index) => (Array.isArray(part) ? { name: `${index}`, hook: part[0] as ModelHook, weight: part[1] as number } : { name: `${index}`, hook: part as ModelHook, weight: 1 }));
    using composed = composeHooks(model, given);
    const result = logitsWith(model, batch, { adapter: composed.hook });
    composed[Symbol.dispose]();
    expect(device.memory.liveHandles - device.cachedScalars).toBe(before);
    return result;
  };

  test('none is the base and one is that one, bit for bit; what acts in different places does not depend on the order', () => {
    const [ia3, side] = [opened({ kind: 'ia3' }), opened({ kind: 'adapter' })];
    expect(logits()).toEqual(logitsWith(model, batch));
    expect(logits(ia3)).toEqual(logitsWith(model, batch, { adapter: ia3 }));
    const both = logits(ia3, side);
    expect(maxDifference(both, logits(side, ia3))).toBeLessThan(1e-5);
    expect(maxDifference(both, logits(ia3))).toBeGreaterThan(1e-3);
    expect(maxDifference(both, logits(side))).toBeGreaterThan(1e-3);
  });

  test('factors multiply, updates add, and a weight takes part of a change', () => {
    const factors = (make: (index: number) => number) => opened({ kind: 'ia3' }, ({ parameterCount }) => Float32Array.from({ length: parameterCount }, (_, index) => make(1 + 0.3 * Math.sin(index))));
    const [up, down, squared] = [factors((f) => f), factors((f) => 1 / f), factors((f) => f * f)];
    expect(maxDifference(logits(up, down), logits())).toBeLessThan(2e-5);
    expect(maxDifference(logits(up, up), logits(squared))).toBeLessThan(2e-5);
    expect(maxDifference(logits([up, 0.5]), logits(factors((f) => 1 + 0.5 * (f - 1))))).toBeLessThan(2e-5);
    const low = opened({ kind: 'lora', r: 2 });
    expect(maxDifference(logits([low, 0.5], [low, 0.5]), logits(low))).toBeLessThan(2e-5);
    expect(maxDifference(logits(low, [low, -1]), logits())).toBeLessThan(2e-5);
    expect(maxDifference(logits(up, low), logits(low, up))).toBeGreaterThan(1e-4);
    const side = opened({ kind: 'adapter' });
    expect(maxDifference(logits([side, 0]), logits())).toBeLessThan(2e-5);
  });

  test('what cannot be active together is refused', () => {
    const prompt = opened({ kind: 'prefix-tuning', num_virtual_tokens: 2 });
    expect(() => logits(prompt, prompt)).toThrow(/"0" and "1" put virtual tokens before the text; at most one/);
    expect(() => logits([prompt, 0.5])).toThrow(/"0" has weight 0.5, but virtual tokens are there or not/);
    const tokens = opened({ kind: 'lora', trainable_token_indices: [3, 5] });
    const others = opened({ kind: 'lora', trainable_token_indices: [5, 7] });
    expect(() => logits(tokens, others)).toThrow(/"0" and "1" have embeddings of their own for token 5/);
    const whole = opened({ kind: 'lora', modules_to_save: [model.tables.embedding.split('.').at(-1)] });
    expect(() => logits(tokens, whole)).toThrow(/change the token embeddings, one of them the whole table/);
    expect(() => logits([tokens, NaN])).toThrow(/the weight of "0" is NaN/);
    const last = opened({ kind: 'full', last_blocks: 1, train_head: model.tables.tied ? null : false });
    const low = opened({ kind: 'lora' });
    expect(() => logits(last, low)).toThrow(/"0" and "1" change .*, one of them with weights of its own/);
    expect(() => logits([last, 0.5])).toThrow(/"0" has weight 0.5, but weights trained whole are there or not/);
    const first = opened({ kind: 'lora', target_modules: 'all-linear', exclude_modules: `.*\\.${model.layers - 1}\\..*` });
    expect(maxDifference(logits(last, first), logits(last))).toBeGreaterThan(1e-3);
  });
});

describe('several adapters of PEFT and SWIFT', () => {
  const composed = join(libraries, 'tuners', 'fixtures', 'composed');
  using file = SafetensorsFile.open(join(composed, 'golden.safetensors'));
  const golden = new Map([...file.tensors.keys()].map((key) => [key, file.read(key).buffer]));
  const ids = new Int32Array(golden.get('ids') as ArrayBuffer);
  const cases = [...golden.keys()].filter((key) => key.startsWith('logits.')).map((key) => key.slice('logits.'.length));

  describe.each(['tensorflow', 'wasm'] as const)('on %s', (backend) => {
    let model: CausalLm;
    beforeAll(async () => {
      const folder = join(libraries, 'models', 'fixtures', 'qwen2');
      model = await loadCausalLm(await openDevice({ backend }), { folder, config: JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')), computeDtype: 'f32' });
      logitsWith(model, { ids, rows: 1, columns: ids.length });
    });
    afterAll(() => model[Symbol.dispose]());

    test.each(cases)('%s give the logits they give there', async (names) => {
      const before = model.device.memory.liveHandles - model.device.cachedScalars;
      const adapters = await Promise.all(names.split('+').map((name) => loadAdapter(model, join(composed, name))));
      const hooks = composeHooks(model, adapters.map(({ hook }, index) => ({ name: `${index}`, hook, weight: 1 })));
      const wanted = new Float32Array(golden.get(`logits.${names}`) as ArrayBuffer);
      const batch = { ids, rows: 1, columns: ids.length };
      const logits = model.device.scope(() => model.device.readFloats(headLogits(model.forward(batch, { adapter: hooks.hook }), headOf(model, hooks.hook))));
      expect(maxDifference(logits, wanted)).toBeLessThan(1e-4);
      for (const { hook } of adapters) expect(maxDifference(logitsWith(model, batch, { adapter: hook }), wanted)).toBeGreaterThan(1e-2);
      hooks[Symbol.dispose]();
      for (const adapter of adapters) adapter.dispose();
      expect(model.device.memory.liveHandles - model.device.cachedScalars).toBe(before);
    });
  });
});

test('three LoRAs, a DoRA and factors take the matrix products of one LoRA, merged they take those of the base', async () => {
  const profile = new OpProfile();
  const folder = join(libraries, 'models', 'fixtures', 'tied');
  using model = await loadCausalLm(await openDevice({ backend: 'tensorflow', profile, fused: false }), { folder, config: JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')), computeDtype: 'f32' });
  const batch = { ids: Int32Array.from({ length: 8 }, (_, index) => index), rows: 1, columns: 8 };
  const opened = (fields: object) => {
    const tuner = createTuner(parseTunerSpec(fields), model);
    return openAdapter(model, tuner, tuner.initialValues(1, startWith(model)));
  };
  const all = { target_modules: 'all-linear' };
  const adapters = [{ kind: 'lora', ...all }, { kind: 'lora', r: 3, ...all }, { kind: 'lora', r: 2, use_dora: true, ...all }, { kind: 'lora', r: 5, use_rslora: true, ...all }, { kind: 'ia3', target_modules: ['q_proj', 'v_proj'] }].map(opened);
  const products = (parts: readonly LoadedAdapter[], merge = false): number => {
    using composed = composeHooks(model, parts.map(({ hook }, index) => ({ name: `${index}`, hook, weight: 1 })), { merge });
    profile.reset();
    logitsWith(model, batch, { adapter: composed.hook });
    return profile.costs().reduce((sum, { label, calls }) => sum + (label.startsWith('matMul') ? calls : 0), 0);
  };
  const base = products([]);
  expect(products(adapters.slice(0, 1))).toBeGreaterThan(base);
  expect(products(adapters)).toBe(products(adapters.slice(0, 1)));
  expect(products(adapters, true)).toBe(base);
  for (const adapter of adapters) adapter.dispose();
});
