/** The prompt-learning methods on every decoder against PEFT (fixtures of `tools/golden/virtual_tokens_fixture.py`): logits, loss, every gradient, greedy text. */
import type { CausalLm } from '@tunefleet/ml-models';
import { headLogits } from '@tunefleet/ml-tensor';
import { createTuner, loadAdapter, parseTunerSpec } from '..';
import { largest, logitsWith, maxDifference, trainingPass } from '../testing';
import { columns, folderOf, goldenOf, handlesOf, METHODS, openBase, rows, type Method } from './testing';

const BASES = ['tied', 'qwen2', 'qwen3', 'mistral', 'gemma2', 'gemma3_text', 'phi3', 'gpt2'];
/** Where the other backend is tried, too: rotary positions, windows and caps, learned positions. */
const WASM = ['tied', 'gemma2', 'gpt2'];
const CASES = (Object.keys(METHODS) as Method[]).flatMap((method) => (METHODS[method].kind === method && method !== 'p-tuning' ? BASES : ['tied']).map((base) => [method, base] as const));

describe.each(CASES)('%s on %s', (method, base) => {
  const golden = goldenOf(method, base);

  test.each((['tensorflow', 'wasm'] as const).filter((backend) => backend === 'tensorflow' || WASM.includes(base)))('logits, loss and every gradient are those of PEFT on %s, also of recomputed blocks', async (backend) => {
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

  test('examples that share a row, also behind a cache, each have the virtual tokens before them', async () => {
    using model = await openBase(base);
    const adapter = await loadAdapter(model, folderOf(method, base));
    const { ids } = golden.batch;
    const numbers = Int32Array.from(ids, (_, i) => (i < columns ? 1 : 2));
    const positions = Int32Array.from(ids, (_, i) => i % columns);
    for (const layout of [{ segments: numbers }, { branches: numbers }]) {
      const packed = logitsWith(model, { ids, rows: 1, columns: rows * columns, positions, ...layout }, { adapter: adapter.hook });
      expect(maxDifference(packed, golden.floats('logits'))).toBeLessThan(1e-4);
    }
    // The first eight tokens of the first row, then its rest and, as another branch, that of the second row.
    const trunk = 8;
    const rest = [ids.slice(trunk, columns), ids.slice(columns + trunk)] as const;
    const both = Int32Array.from(rest.flatMap((part) => [...part]));
    const size = columns - trunk;
    using cache = model.openCache(1);
    logitsWith(model, { ids: ids.slice(0, trunk), rows: 1, columns: trunk }, { adapter: adapter.hook, cache });
    const branched = { ids: both, rows: 1, columns: both.length, positions: Int32Array.from(both, (_, i) => trunk + (i % size)), branches: Int32Array.from(both, (_, i) => (i < size ? 1 : 2)) };
    const got = logitsWith(model, branched, { adapter: adapter.hook, cache });
    const wanted = rest.map((part) => logitsWith(model, { ids: Int32Array.of(...ids.slice(0, trunk), ...part), rows: 1, columns }, { adapter: adapter.hook }).subarray(trunk * model.vocabSize));
    expect(maxDifference(got, Float32Array.from(wanted.flatMap((each) => [...each])))).toBeLessThan(1e-4);
    adapter.dispose();
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
