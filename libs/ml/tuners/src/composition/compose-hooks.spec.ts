/** Several adapters at once against one combined adapter, and against themselves, on every decoder. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { architectureSpecs, loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import type { ModelHook } from '@tunefleet/ml-nn';
import { openDevice, type Device } from '@tunefleet/ml-tensor';
import { openAdapter, type LoadedAdapter } from '../loaded-adapter';
import { createTuner } from '../registry';
import { parseTunerSpec } from '../spec-registry';
import { logitsWith, maxDifference, startWith } from '../testing';
import { composeHooks } from './compose-hooks';

const NAMES = ['tied', ...Object.keys(architectureSpecs).filter((type) => type !== 'llama')];

let device: Device;
beforeAll(async () => {
  device = await openDevice({ backend: 'tensorflow' });
});

describe.each(NAMES)('%s', (name) => {
  const folder = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', 'models', 'fixtures', name);
  const batch = { ids: Int32Array.from({ length: 48 }, (_, index) => (index * 29 + 7) % 64), rows: 2, columns: 24 };
  let model: CausalLm;
  const opened: LoadedAdapter[] = [];
  beforeAll(async () => {
    model = await loadCausalLm(device, { folder, config: JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')), computeDtype: 'f32' });
  });
  afterAll(() => {
    for (const adapter of opened) adapter.dispose();
    model[Symbol.dispose]();
  });

  const open = (fields: object, factor = 1): ModelHook => {
    const tuner = createTuner(parseTunerSpec(fields), model);
    const values = tuner.initialValues(3, startWith(model)).map((value, index) => (value + 0.05 * Math.sin(index)) * factor);
    const adapter = openAdapter(model, tuner, values);
    opened.push(adapter);
    return adapter.hook;
  };
  const logits = (hooks: readonly ModelHook[]) => logitsWith(model, batch, { adapter: composeHooks(hooks) });

  test('none is the base, one is that one, bit for bit; two that undo each other are the base, two of half the size the whole', () => {
    const ia3 = open({ kind: 'ia3' });
    const side = open({ kind: 'adapter' });
    expect(logits([])).toEqual(logitsWith(model, batch));
    expect(logits([ia3])).toEqual(logitsWith(model, batch, { adapter: ia3 }));
    const both = logits([ia3, side]);
    expect(maxDifference(both, logits([side, ia3]))).toBeLessThan(1e-5);
    expect(maxDifference(both, logits([ia3]))).toBeGreaterThan(1e-3);
    expect(maxDifference(both, logits([side]))).toBeGreaterThan(1e-3);
    // Factors f and 2 - f on every output: their changes are opposite.
    const tuner = createTuner(parseTunerSpec({ kind: 'ia3' }), model);
    const values = Float32Array.from({ length: tuner.parameterCount }, (_, index) => 1 + 0.3 * Math.sin(index));
    const [up, down, twice] = [values, values.map((value) => 2 - value), values.map((value) => 2 * value - 1)].map((each) => {
      const adapter = openAdapter(model, tuner, each);
      opened.push(adapter);
      return adapter.hook;
    }) as [ModelHook, ModelHook, ModelHook];
    expect(maxDifference(logits([up, down]), logits([]))).toBeLessThan(1e-5);
    expect(maxDifference(logits([up, up]), logits([twice]))).toBeLessThan(1e-5);
    expect(maxDifference(logits([up]), logits([]))).toBeGreaterThan(1e-3);
  });

  test('two that cannot be active together are refused', () => {
    const prompt = open({ kind: 'prefix-tuning', num_virtual_tokens: 2 });
    expect(() => composeHooks([prompt, prompt])).toThrow(/2 of the adapters put virtual tokens before the text; at most one/);
  });
});
