/** The prompt-learning methods on every decoder against PEFT (fixtures of `tools/golden/virtual_tokens_fixture.py`): logits, loss, every gradient, greedy text. */
import type { CausalLm } from '@tunefleet/ml-models';
import { headLogits } from '@tunefleet/ml-tensor';
import { createTuner, loadAdapter, parseTunerSpec } from '..';
import { largest, logitsWith, maxDifference, trainingPass } from '../testing';
import { folderOf, goldenOf, handlesOf, METHODS, openBase, type Method } from './testing';

const BASES = ['tied', 'qwen2', 'qwen3', 'mistral', 'gemma2', 'gemma3_text', 'phi3', 'gpt2'];
const CASES = (Object.keys(METHODS) as Method[]).flatMap((method) => (METHODS[method].kind === method && method !== 'p-tuning' ? BASES : ['tied']).map((base) => [method, base] as const));

describe.each(CASES)('%s on %s', (method, base) => {
  const golden = goldenOf(method, base);

  test.each(['tensorflow', 'wasm'] as const)('logits, loss and every gradient are those of PEFT on %s, also of recomputed blocks', async (backend) => {
    using model = await openBase(base, backend);
    const adapter = await loadAdapter(model, folderOf(method, base));
    expect(maxDifference(logitsWith(model, golden.batch, { adapter: adapter.hook }), golden.floats('logits'))).toBeLessThan(1e-4);
    adapter.dispose();
    const tuner = createTuner(parseTunerSpec(METHODS[method]), model);
    const values = golden.valuesOf(tuner);
    const before = handlesOf(model);
    for (const recomputeBlocks of [false, true]) {
      const { loss, gradients } = trainingPass(model, tuner, values, golden.batch, golden.labels, { recomputeBlocks });
      expect(Math.abs(loss - (golden.floats('loss')[0] ?? NaN))).toBeLessThan(2e-5);
      tuner.parameters.forEach(({ name }, index) => {
        const wanted = golden.floats(`grad.${name}`);
        expect(largest(wanted)).toBeGreaterThan(1e-5);
        expect(maxDifference(gradients[index] ?? [], wanted)).toBeLessThan(1e-5 + 5e-4 * largest(wanted));
      });
    }
    expect(handlesOf(model)).toBe(before);
  });

  test('continues a text as PEFT does, token by token on a cache', async () => {
    using model = await openBase(base);
    const adapter = await loadAdapter(model, folderOf(method, base));
    using cache = model.openCache(1);
    const wanted = golden.integers('greedy');
    let next = golden.batch.ids.slice(0, 8);
    const got = Array.from(wanted, () => {
      const logits = logitsWithCache(model, next, cache, adapter.hook);
      next = Int32Array.of(logits.indexOf(largestOf(logits)));
      return next[0];
    });
    expect(got).toEqual([...wanted]);
    adapter.dispose();
  });
});

function logitsWithCache(model: CausalLm, ids: Int32Array, cache: ReturnType<CausalLm['openCache']>, adapter: object): Float32Array {
  const outputRows = Int32Array.of(ids.length - 1);
  using hidden = model.forward({ ids, rows: 1, columns: ids.length }, { cache, adapter, outputRows });
  return model.device.scope(() => model.device.readFloats(headLogits(hidden, model.head)));
}
const largestOf = (values: Float32Array) => values.reduce((most, value) => Math.max(most, value), -Infinity);
