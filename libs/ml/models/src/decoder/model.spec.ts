/** The frame of all decoders, on a tiny Llama: padding, handles, failed steps, refusals, precision. Numbers are in `decoders.spec.ts`. */
import type { Device } from '@tunefleet/ml-tensor';
import { loadCausalLm } from '../loading/load-causal-lm';
import { openDevice } from '@tunefleet/ml-tensor';
import type { CausalLm } from '../causal-lm';
import { goldenModel, loadGolden, logitsOf, maxDifference } from '../testing';

describe.each(['tensorflow', 'wasm'] as const)('decoder on %s', (backend) => {
  let device: Device;
  let model: CausalLm;
  const golden = goldenModel('tied');
  const [rows, columns, V] = [2, 24, 64];
  const batch = { ids: golden.ids, rows, columns };

  beforeAll(async () => {
    device = await openDevice({ backend });
    model = await loadGolden(device, golden);
  });
  afterAll(() => model[Symbol.dispose]());

  test('padding on the right changes nothing before it', () => {
    const padded = Int32Array.from(golden.ids, (id, i) => (i % columns < 9 ? id : 3));
    const full = logitsOf(model, batch).subarray(0, 9 * V);
    expect(maxDifference(logitsOf(model, { ids: padded, rows, columns }).subarray(0, 9 * V), full)).toBe(0);
  });

  test('only the rows that are wanted', () => {
    const wanted = Int32Array.of(0, 7, 23, 30, 47);
    const all = logitsOf(model, batch);
    const some = logitsOf(model, batch, { outputRows: wanted });
    expect(some).toHaveLength(wanted.length * V);
    wanted.forEach((row, index) => expect(maxDifference(some.subarray(index * V, (index + 1) * V), all.subarray(row * V, (row + 1) * V))).toBeLessThan(1e-5));
  });

  test('nothing is left on the device', () => {
    logitsOf(model, batch);
    const before = device.memory.liveHandles - device.cachedScalars;
    logitsOf(model, batch);
    {
      using cache = model.openCache(rows);
      logitsOf(model, batch, { cache });
      cache.truncate(3);
      logitsOf(model, { ids: golden.ids.slice(0, rows), rows, columns: 1 }, { cache });
      logitsOf(model, batch, { outputRows: Int32Array.of(3, 4) });
      logitsOf(model, { ...batch, positions: Int32Array.from(golden.ids, (_, i) => i % columns), segments: new Int32Array(rows * columns) });
    }
    expect(device.memory.liveHandles - device.cachedScalars).toBe(before);
  });

  test('a failed step leaves the cache as it was', () => {
    using cache = model.openCache(1);
    const ids = golden.ids.slice(0, 4);
    logitsOf(model, { ids, rows: 1, columns: 4 }, { cache });
    let calls = 0;
    const adapter = {
      project: () => {
        if (++calls > 5) throw new Error('lost');
        return null;
      },
    };
    expect(() => model.forward({ ids, rows: 1, columns: 4 }, { cache, adapter })).toThrow('lost');
    expect(cache.length).toBe(4);
    const next = { ids: golden.ids.slice(4, 5), rows: 1, columns: 1 };
    const wanted = logitsOf(model, { ids: golden.ids.slice(0, 5), rows: 1, columns: 5 }).subarray(4 * V);
    expect(maxDifference(logitsOf(model, next, { cache }), wanted)).toBeLessThan(1e-5);
  });

  test('wrong inputs are refused', () => {
    const long = 129;
    expect(() => model.forward({ ids: new Int32Array(long), rows: 1, columns: long })).toThrow('a sequence of 129 tokens is longer than the 128 positions');
    expect(() => model.forward({ ids: Int32Array.of(64), rows: 1, columns: 1 })).toThrow('token 64 is outside the vocabulary of 64');
    expect(() => model.forward({ ids: Int32Array.of(1, 2), rows: 1, columns: 1 })).toThrow('came with 2 ids');
    using cache = model.openCache(2);
    expect(() => model.forward({ ids: Int32Array.of(1), rows: 1, columns: 1 }, { cache })).toThrow('a cache of 2 rows was given a batch of 1');
  });
});

test('bf16 stays close to f32', async () => {
  const device = await openDevice({ backend: 'tensorflow' });
  const golden = goldenModel('tied');
  using model = await loadGolden(device, golden, 'bf16');
  expect(maxDifference(logitsOf(model, { ids: golden.ids, rows: 2, columns: 24 }), golden.logits)).toBeLessThan(0.15);
});

test('weights that rest in bf16 give the f32 logits of the same weights', async () => {
  const device = await openDevice({ backend: 'tensorflow' });
  const golden = goldenModel('scaled');
  // Shards in bf16: nothing is lost by keeping them so.
  using wide = await loadGolden(device, golden);
  using narrow = await loadCausalLm(device, { folder: golden.folder, config: golden.config, computeDtype: 'f32', weightDtype: 'bf16' });
  const batch = { ids: golden.ids, rows: 2, columns: 24 };
  expect(logitsOf(narrow, batch)).toEqual(logitsOf(wide, batch));
  expect(narrow.weightBytes).toBeLessThan(0.6 * wide.weightBytes);
});
