/**
 * Every decoder against Hugging Face Transformers (fixtures of `tools/golden`), and against itself: cached, packed and branched forms must agree with the plain one.
 * The fixtures' windows are shorter than their rows.
 */
import { SafetensorsFolder } from '@tunefleet/ml-formats';
import { openDevice, type Device } from '@tunefleet/ml-tensor';
import { architectureSpecs, describeCausalLm } from '../architecture-specs';
import type { CausalLm, ForwardOptions } from '../causal-lm';
import { loadCausalLm } from '../loading/load-causal-lm';
import { goldenModel, loadGolden, logitsOf, maxDifference } from '../testing';

const NAMES = ['tied', 'scaled', ...Object.keys(architectureSpecs).filter((type) => type !== 'llama')];
const [rows, columns, V] = [2, 24, 64];

describe.each(['tensorflow', 'wasm'] as const)('on %s', (backend) => {
  let device: Device;
  beforeAll(async () => {
    device = await openDevice({ backend });
  });

  describe.each(NAMES)('%s', (name) => {
    const golden = goldenModel(name);
    const batch = { ids: golden.ids, rows, columns };
    let model: CausalLm;
    let before = 0;
    beforeAll(async () => {
      before = device.memory.liveHandles - device.cachedScalars;
      model = await loadGolden(device, golden);
    });
    afterAll(() => {
      model[Symbol.dispose]();
      expect(device.memory.liveHandles - device.cachedScalars).toBe(before);
    });

    /** Columns `from` to `to` of every row. */
    const part = (from: number, to: number) => ({
      ids: Int32Array.from({ length: rows * (to - from) }, (_, i) => golden.ids[Math.floor(i / (to - from)) * columns + from + (i % (to - from))] ?? 0),
      rows,
      columns: to - from,
    });

    test('logits are those of Transformers', () => {
      expect(maxDifference(logitsOf(model, batch), golden.logits)).toBeLessThan(1e-4);
    });

    test('the description names what the checkpoint and the model hold', () => {
      using files = SafetensorsFolder.open(golden.folder);
      const elements = files.names().reduce((sum, tensor) => sum + files.entry(tensor).shape.reduce((product, size) => product * size, 1), 0);
      const { parameterCount, projections, layers, modelType } = describeCausalLm(golden.config);
      expect({ parameterCount, layers, modelType }).toEqual({ parameterCount: elements, layers: model.layers, modelType: model.modelType });
      expect(model.projections).toMatchObject(projections);
      expect(model.projections).toHaveLength(projections.length);
    });

    test('decoding on a cache, in pieces, gives the full forward', () => {
      using cache = model.openCache(rows);
      const full = logitsOf(model, batch);
      const expectRows = (got: Float32Array, from: number, to: number) => {
        for (let row = 0; row < rows; row++) {
          const wanted = full.subarray((row * columns + from) * V, (row * columns + to) * V);
          expect(maxDifference(got.subarray(row * (to - from) * V, (row + 1) * (to - from) * V), wanted)).toBeLessThan(2e-5);
        }
      };
      expectRows(logitsOf(model, part(0, 10), { cache }), 0, 10);
      expectRows(logitsOf(model, part(10, 15), { cache }), 10, 15);
      for (let at = 15; at < columns; at++) expectRows(logitsOf(model, part(at, at + 1), { cache }), at, at + 1);
      cache.truncate(12);
      expectRows(logitsOf(model, part(12, 20), { cache }), 12, 20);
      expect(cache.length).toBe(20);
    });

    (golden.greedy ? test : test.skip)('greedy decoding on a cache continues as Transformers does (the Llama fixtures have no such text)', () => {
      using cache = model.openCache(1);
      const options: ForwardOptions = { cache };
      const wanted = [...(golden.greedy ?? [])];
      let logits = logitsOf(model, { ids: golden.ids.slice(0, 8), rows: 1, columns: 8 }, options).subarray(-V);
      const got = wanted.map(() => {
        const best = logits.reduce((top, value, token) => (value > (logits[top] ?? NaN) ? token : top), 0);
        logits = logitsOf(model, { ids: Int32Array.of(best), rows: 1, columns: 1 }, options);
        return best;
      });
      expect(got).toEqual(wanted);
    });

    test('packed segments with their own positions equal separate rows', () => {
      const cuts = [0, 3, 14, columns];
      const segments = Int32Array.from({ length: columns }, (_, i) => cuts.findIndex((cut) => cut > i));
      const positions = Int32Array.from({ length: columns }, (_, i) => i - (cuts[(segments[i] ?? 1) - 1] ?? 0));
      const ids = golden.ids.slice(0, columns);
      const packed = logitsOf(model, { ids, rows: 1, columns, positions, segments });
      for (let index = 0; index + 1 < cuts.length; index++) {
        const [from = 0, to = 0] = [cuts[index], cuts[index + 1]];
        const alone = logitsOf(model, { ids: ids.slice(from, to), rows: 1, columns: to - from });
        expect(maxDifference(packed.subarray(from * V, to * V), alone)).toBeLessThan(2e-5);
      }
    });

    test('branches of one trunk equal separate rows, also after a cached beginning', () => {
      const ids = golden.ids.slice(0, columns);
      const [cached, trunk, first] = [4, 8, 7];
      const branches = Int32Array.from({ length: columns - cached }, (_, i) => (i + cached < cached + trunk ? 0 : i < trunk + first ? 1 : 2));
      const positions = Int32Array.from(branches, (branch, i) => cached + (branch === 2 ? i - first : i));
      using cache = model.openCache(1);
      logitsOf(model, { ids: ids.slice(0, cached), rows: 1, columns: cached }, { cache });
      const shared = logitsOf(model, { ids: ids.slice(cached), rows: 1, columns: columns - cached, positions, branches }, { cache });
      const start = cached + trunk;
      const left = logitsOf(model, { ids: ids.slice(0, start + first), rows: 1, columns: start + first });
      const right = Int32Array.of(...ids.slice(0, start), ...ids.slice(start + first));
      const alone = logitsOf(model, { ids: right, rows: 1, columns: right.length });
      expect(maxDifference(shared.subarray(0, (trunk + first) * V), left.subarray(cached * V))).toBeLessThan(2e-5);
      expect(maxDifference(shared.subarray((trunk + first) * V), alone.subarray(start * V))).toBeLessThan(2e-5);
    });

    (backend === 'tensorflow' ? test : test.skip)('bf16, of all or of the weights at rest, stays close to f32 (wasm has no bf16)', async () => {
      using narrow = await loadGolden(device, golden, 'bf16');
      expect(maxDifference(logitsOf(narrow, batch), golden.logits)).toBeLessThan(0.25);
      using resting = await loadCausalLm(device, { folder: golden.folder, config: golden.config, computeDtype: 'f32', weightDtype: 'bf16' });
      expect(maxDifference(logitsOf(resting, batch), golden.logits)).toBeLessThan(0.1);
    });
  });
});
