/**
 * Every op on every backend: its gradient against central differences of a random projection of its output, in f32 on small shapes,
 * and no handle left over. Fast forms are compared with plain ones where there is one.
 */
import type { Device } from '../device';
import { checkpoint, gradients, singleOutputOp } from '../tape/perform';
import type { Tensor } from '../tensor';
import { TEST_BACKENDS, testDevice } from '../testing';
import { attention } from './attention/attention';
import { blockMask, type BlockMask } from './attention/block-mask';
import { branchMask, causalMask, eachRange, MASKED, segmentMask, type AttentionMask } from './attention/masks';
import { queryBlocks, scoredPairs } from './attention/query-blocks';
import { add, cast, mul, relu, scale, tanh } from './arithmetic/arithmetic';
import { geglu, gelu, geluTanh } from './gelu/gelu';
import { headCrossEntropy } from './head-cross-entropy/head-cross-entropy';
import { headRowObjective } from './head-cross-entropy/head-row-objective';
import { headLogits, type OutputHead } from './head-cross-entropy/output-head';
import { embeddingLora, replaceRows } from './embedding/trainable-rows';
import { layerNorm } from './layer-norm/layer-norm';
import { mergeHeads, splitAxis, splitHeads } from './layout/heads';
import { concatColumns, concatRows } from './layout/concat';
import { precede } from './layout/precede';
import { meanOfRows, placeRows, selectRows } from './layout/rows';
import { frozenMatrix, multiplyForward, outputSquares } from './linear/frozen-matrix';
import { linear } from './linear/linear';
import { linearGroup } from './linear/linear-group';
import type { Dropout } from './linear/input-dropout';
import { bundleLora } from './linear/lora-bundle';
import { laneStack, stackBundles } from './linear/lora-stack';
import { routedLinearGroup } from './linear/routed-linear-group';
import { rmsNorm } from './rms-norm/rms-norm';
import { rope, ropeTables } from './rope/rope';
import { blend } from './blend/blend';
import { silu } from './silu/silu';
import { swiglu } from './swiglu/swiglu';

type Shapes = readonly (readonly number[])[];

/** Deterministic values in [-1, 1), different per seed. */
function values(count: number, seed: number): Float32Array {
  let state = (seed * 2654435761) >>> 0;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 0x80000000 - 1;
  });
}

const size = (shape: readonly number[]) => shape.reduce((product, n) => product * n, 1);

/** loss = sum(x * weights), the projection that turns any output into a scalar. */
function project(x: Tensor, seed: number): Tensor {
  const p = x.device.primitives;
  const weights = x.device.tensor(values(size(x.shape), seed), x.shape, 'f32');
  return singleOutputOp(x.device, {
    name: 'project',
    inputs: [x],
    run: () => ({ outputs: [p.sumAll(p.mul(x, weights))], save: [weights] }),
    backward: ({ gradients: [g = null], saved: [w] }) => [g && w ? p.mul(w, g) : null],
  });
}

/** [rows, queries, keys], to be added to scores. */
function matrixOf(mask: AttentionMask): number[] {
  const lines = Array.from({ length: mask.rows * mask.queries }, () => new Array<number>(mask.keys).fill(MASKED));
  lines.forEach((line, i) => eachRange(mask, Math.floor(i / mask.queries), i % mask.queries, (start, end) => line.fill(0, start, end)));
  return lines.flat();
}

function checkGradients(device: Device, shapes: Shapes, fn: (...inputs: Tensor[]) => Tensor, asLoss = (y: Tensor) => project(y, 99)): void {
  const data = shapes.map((shape, index) => values(size(shape), index + 1));
  const evaluate = (arrays: readonly Float32Array[]) =>
    device.scope(() => {
      const inputs = arrays.map((array, i) => device.tensor(Float32Array.from(array), shapes[i] ?? [], 'f32'));
      const { result, gradients: grads } = gradients(device, inputs, () => ({ loss: asLoss(fn(...inputs)) }));
      return { loss: device.readFloats(result.loss)[0] ?? NaN, grads: grads.map((g) => (g ? device.readFloats(g) : null)) };
    });
  const { grads } = evaluate(data);
  const epsilon = 1e-2;
  for (const [which, array] of data.entries()) {
    const analytic = grads[which];
    expect(analytic?.length).toBe(array.length);
    for (let i = 0; i < array.length; i += Math.max(1, Math.floor(array.length / 12))) {
      const shifted = (by: number) => data.map((d, j) => (j === which ? Float32Array.from(d, (v, k) => (k === i ? v + by : v)) : d));
      const numeric = (evaluate(shifted(epsilon)).loss - evaluate(shifted(-epsilon)).loss) / (2 * epsilon);
      const error = Math.abs(numeric - (analytic?.[i] ?? NaN));
      expect(error).toBeLessThan(2e-3 + 1e-2 * Math.abs(numeric));
    }
  }
}

describe.each(TEST_BACKENDS)('ops on %s', (backend) => {
  let device: Device;
  let handlesBefore = 0;
  beforeAll(async () => {
    device = await testDevice(backend);
    device.scalar(1, 'f32');
  });
  beforeEach(() => {
    handlesBefore = device.memory.liveHandles - scalarCount(device);
  });
  afterEach(() => {
    expect(device.memory.liveHandles - scalarCount(device)).toBe(handlesBefore);
  });

  const frozen = (shape: readonly [number, number], seed: number) => frozenMatrix(device, device.tensor(values(size(shape), seed), shape, 'f32'));

  test('add and scale', () => {
    checkGradients(device, [[3, 4], [3, 4]], (a, b) => add(scale(a, 2.5), add(a, b)));
  });

  test('mul spreads its factor over rows, columns or everything', () => {
    for (const factor of [[3, 4], [4], [1, 4], [3, 1], []]) checkGradients(device, [[3, 4], factor], mul);
    checkGradients(device, [[1, 4], [1, 4]], mul);
  });

  test('concatColumns', () => {
    checkGradients(device, [[3, 4], [3, 1], [3, 2]], (...parts) => concatColumns(parts));
    checkGradients(device, [[3, 4]], (x) => concatColumns([x]));
    checkGradients(device, [[3, 4], [1, 4], [2, 4]], (...parts) => concatRows(parts));
  });

  test('blend and silu', () => {
    checkGradients(device, [[3, 4], [3, 4], []], blend);
    checkGradients(device, [[3, 4]], (x) => silu(scale(x, 3)));
  });

  test('linear, with and without bias', () => {
    checkGradients(device, [[5, 4], [3, 4], [3]], (x, weight, bias) => linear(x, weight, bias));
    checkGradients(device, [[5, 4], [3, 4]], (x, weight) => linear(x, weight));
    checkGradients(device, [[5, 4], [4, 3], [3]], (x, weight, bias) => linear(x, weight, bias, 'inOut'));
  });

  test('precede puts the same keys before those of every row', () => {
    checkGradients(device, [[2, 2, 3, 4], [1, 2, 2, 4]], precede);
    checkGradients(device, [[1, 2, 3, 4], [1, 2, 2, 4]], precede);
    device.scope(() => {
      const rows = device.tensor(Float32Array.of(1, 2, 3, 4), [2, 1, 2, 1], 'f32');
      expect([...device.readFloats(precede(rows, device.tensor(Float32Array.of(9), [1, 1, 1, 1], 'f32')))]).toEqual([9, 1, 2, 9, 3, 4]);
    });
  });

  test('rmsNorm', () => {
    checkGradients(device, [[4, 8], [8]], (x, weight) => rmsNorm(x, weight, 1e-5));
    checkGradients(device, [[2, 3, 2, 4], [4]], (x, weight) => rmsNorm(x, weight, 1e-5));
    checkGradients(device, [[8]], (weight) => rmsNorm(device.tensor(values(32, 5), [4, 8], 'f32'), weight, 1e-5));
  });

  test('layerNorm', () => {
    checkGradients(device, [[4, 8], [8], [8]], (x, weight, bias) => layerNorm(x, weight, bias, 1e-5));
    checkGradients(device, [[8]], (bias) => layerNorm(device.tensor(values(32, 5), [4, 8], 'f32'), device.tensor(values(8, 6), [8], 'f32'), bias, 1e-5));
    device.scope(() => {
      const [ones, zeros] = [device.tensor(new Float32Array(3).fill(1), [3], 'f32'), device.tensor(new Float32Array(3), [3], 'f32')];
      const y = device.readFloats(layerNorm(device.tensor(Float32Array.of(1, 2, 3), [1, 3], 'f32'), ones, zeros, 0));
      [-Math.sqrt(1.5), 0, Math.sqrt(1.5)].forEach((value, i) => expect(y[i]).toBeCloseTo(value, 5));
    });
  });

  test('exact gelu and tanh', () => {
    checkGradients(device, [[4, 6]], (x) => gelu(scale(x, 3)));
    checkGradients(device, [[4, 6]], (x) => tanh(scale(x, 2)));
    device.scope(() => {
      // torch.nn.functional.gelu(x)
      const y = device.readFloats(gelu(device.tensor(Float32Array.of(-2, -0.5, 0, 1, 3), [5], 'f32')));
      [-0.0455003, -0.1542688, 0, 0.8413447, 2.9959502].forEach((value, i) => expect(y[i]).toBeCloseTo(value, 5));
    });
  });

  test('relu and cast', () => {
    checkGradients(device, [[2, 5], [2, 5]], (a, b) => relu(add(a, b)));
    checkGradients(device, [[4, 6]], (x) => cast(x, 'f32'));
    device.scope(() => {
      const x = device.tensor(Float32Array.of(-2, 0, 3), [3], 'f32');
      const { result, gradients: got } = gradients(device, [x], () => ({ loss: project(relu(x), 1), y: relu(x) }));
      expect([...device.readFloats(result.y)]).toEqual([0, 0, 3]);
      expect([...device.readFloats(got[0] as Tensor)].map((slope) => slope !== 0)).toEqual([false, false, true]);
    });
  });

  test('meanOfRows', () => {
    checkGradients(device, [[6, 4]], (x) => meanOfRows(x, Int32Array.of(2, 3)));
    device.scope(() => {
      const x = device.tensor(Float32Array.of(1, 3, 100, 5, 6, 7), [6, 1], 'f32');
      expect([...device.readFloats(meanOfRows(x, Int32Array.of(2, 3)))]).toEqual([2, 6]);
    });
  });

  test('geluTanh and geglu', () => {
    checkGradients(device, [[4, 6]], (x) => geluTanh(scale(x, 3)));
    checkGradients(device, [[3, 5], [3, 5]], (gate, up) => geglu(scale(gate, 3), up));
    device.scope(() => {
      // torch.nn.functional.gelu(x, approximate='tanh')
      const y = device.readFloats(geluTanh(device.tensor(Float32Array.of(-2, -0.5, 0, 1, 3), [5], 'f32')));
      [-0.0454023, -0.1542860, 0, 0.8411920, 2.9963627].forEach((value, i) => expect(y[i]).toBeCloseTo(value, 5));
    });
  });

  test('rope with shared and with row-wise positions', () => {
    const inverseFrequencies = Float64Array.from([1, 0.1, 0.01]);
    const shared = ropeTables(device, { inverseFrequencies, positions: Int32Array.of(0, 1, 2, 3), rows: 1, columns: 4, dtype: 'f32' });
    const perRow = ropeTables(device, { inverseFrequencies, positions: Int32Array.of(0, 1, 2, 3, 0, 1, 0, 1), rows: 2, columns: 4, dtype: 'f32' });
    for (const tables of [shared, perRow]) {
      checkGradients(device, [[2, 2, 4, 6]], (x) => rope(x, tables));
      for (const table of Object.values(tables) as Tensor[]) table.dispose();
    }
  });

  test('splitHeads and mergeHeads are inverse', () => {
    checkGradients(device, [[6, 8]], (x) => splitHeads(x, 2, [2])[0] as Tensor);
    checkGradients(device, [[6, 8]], (x) => {
      const [a, b] = splitHeads(x, 2, [3, 1]) as [Tensor, Tensor];
      return add(project(a, 11), project(b, 12));
    }, (sum) => sum);
    checkGradients(device, [[6, 8]], (x) => splitHeads(x, 2, [3, 1])[1] as Tensor);
    checkGradients(device, [[6, 8]], (x) => selectRows(x, Int32Array.of(1, 4, 5)));
    checkGradients(device, [[3, 8]], (x) => placeRows(x, Int32Array.of(1, 4, 5), 6));
    checkGradients(device, [[6, 8]], (x) => splitAxis(x, [3, 5], 1)[1] as Tensor);
    device.scope(() => {
      const x = device.tensor(values(48, 1), [6, 8], 'f32');
      expect(device.read(mergeHeads(splitHeads(x, 2, [2])[0] as Tensor))).toEqual(device.read(x));
    });
  });

  test('attention: grouped heads, causal', () => {
    checkGradients(device, [[2, 4, 5, 6], [2, 2, 5, 6], [2, 2, 5, 6]], (q, k, v) => attention(q, k, v, blockMask(device, causalMask(5, 5))));
  });

  test('attention: scale of its own, capped scores, window', () => {
    checkGradients(device, [[2, 4, 5, 6], [2, 2, 5, 6], [2, 2, 5, 6]], (q, k, v) => attention(q, k, v, blockMask(device, causalMask(5, 5, 0, 2)), { scale: 2, softcap: 1.5 }));
    checkGradients(device, [[1, 2, 2, 2], [1, 1, 300, 2], [1, 1, 300, 2]], (q, k, v) => attention(q, k, v, null, { scale: 2, softcap: 1.5 }));
  });

  test('masks with a window show the last keys only', () => {
    const seen = (mask: AttentionMask) => matrixOf(mask).map((value) => (value === 0 ? 1 : 0)).join('');
    expect(seen(causalMask(3, 5, 2, 2))).toBe('01100' + '00110' + '00011');
    expect(seen(causalMask(2, 3, 1, 9))).toBe('110' + '111');
    expect(seen(segmentMask(Int32Array.of(1, 1, 1, 2), { rows: 1, columns: 4, window: 2 }))).toBe('1000' + '1100' + '0110' + '0001');
    expect(seen(segmentMask(Int32Array.of(1, 1, 2), { rows: 1, columns: 3, offset: 2 }))).toBe('11100' + '11110' + '11001');
    expect(seen(segmentMask(Int32Array.of(1, 1, 2), { rows: 1, columns: 3, offset: 2, window: 2 }))).toBe('01100' + '00110' + '01001');
    const branches = Int32Array.of(0, 1, 1, 2);
    const positions = Int32Array.of(2, 3, 4, 3);
    expect(seen(branchMask(branches, { rows: 1, columns: 4, offset: 2 }))).toBe('111000' + '111100' + '111110' + '111001');
    expect(seen(branchMask(branches, { rows: 1, columns: 4, offset: 2, window: { size: 3, positions } }))).toBe('111000' + '011100' + '001110' + '011001');
  });

  test('attention over more keys than it keeps probabilities of', () => {
    checkGradients(device, [[1, 2, 2, 2], [1, 1, 300, 2], [1, 1, 300, 2]], (q, k, v) => attention(q, k, v, null));
  });

  test('attention in blocks of queries is attention over all keys', () => {
    // Three branches behind a trunk of 20, in rows that differ, after 8 earlier keys; each block leaves keys out.
    const columns = 300;
    const branches = Int32Array.from({ length: 2 * columns }, (_, i) => (i % columns < 20 ? 0 : 1 + Math.floor((i % columns) / (i < columns ? 100 : 140))));
    const mask = branchMask(branches, { rows: 2, columns, offset: 8 });
    const shapes = [[2, 2, columns, 4], [2, 1, columns + 8, 4], [2, 1, columns + 8, 4]];
    const blocks = queryBlocks(mask);
    expect(blocks.length).toBeGreaterThan(1);
    expect(scoredPairs(blocks)).toBeLessThan(0.8 * columns * (columns + 8));
    device.scope(() => {
      const whole: BlockMask = { queries: columns, keys: columns + 8, visible: null, blocks: [{ from: 0, to: columns, keys: [[0, columns + 8]], mask: device.tensor(Float32Array.from(matrixOf(mask)), [2, 1, columns, columns + 8], 'f32') }] };
      const results = [blockMask(device, mask), whole].map((given) => {
        const leaves = shapes.map((shape, i) => device.tensor(values(shape.reduce((a, b) => a * b, 1), i + 1), shape, 'f32'));
        const { result, gradients: parts } = gradients(device, leaves, () => {
          const output = attention(leaves[0] as Tensor, leaves[1] as Tensor, leaves[2] as Tensor, given, { softcap: 3 });
          return { loss: project(output, 5), output };
        });
        return [result.output, ...parts].map((part) => device.readFloats(part as Tensor));
      });
      results[0]?.forEach((numbers, part) => numbers.forEach((value, i) => expect(Math.abs(value - (results[1]?.[part]?.[i] ?? NaN))).toBeLessThan(1e-5)));
    });
  });

  test('attention does not look past segment borders', () => {
    device.scope(() => {
      const segments = Int32Array.of(0, 0, 1, 1, 1);
      const [q, k, v] = [1, 2, 3].map((seed) => device.tensor(values(30, seed), [1, 1, 5, 6], 'f32')) as [Tensor, Tensor, Tensor];
      const packed = device.read(attention(q, k, v, blockMask(device, segmentMask(segments, { rows: 1, columns: 5 })))) as Float32Array;
      const cut = (x: Tensor) => device.primitives.slice(x, [0, 0, 2, 0], [1, 1, 3, 6]);
      const alone = device.read(attention(cut(q), cut(k), cut(v), blockMask(device, causalMask(3, 3)))) as Float32Array;
      alone.forEach((value, i) => expect(packed[12 + i]).toBeCloseTo(value, 5));
    });
  });

  test('swiglu', () => {
    checkGradients(device, [[3, 5], [3, 5]], swiglu);
  });

  test('linearGroup: bias and residual', () => {
    const map = () => ({ weight: frozen([5, 4], 7), bias: device.tensor(values(5, 8), [5], 'f32') });
    checkGradients(device, [[3, 4]], (x) => linearGroup(x, [map()])[0] as Tensor);
    checkGradients(device, [[3, 4], [3, 5]], (x, residual) => linearGroup(x, [map()], { residual })[0] as Tensor);
  });

  /** Three updates of two maps of sizes 6 and 3: rows 1-2 and 3-5 of the first, all of the second. */
  const placed = [{ map: 0, row: 1, scale: 1.5 }, { map: 0, row: 3, scale: 2 }, { map: 1, row: 0, scale: 1 }];
  const factorShapes = [[2, 4], [2, 2], [1, 4], [1, 3], [3, 4], [3, 3]];
  const updatesOf = (factors: readonly Tensor[], dropout: Dropout | null) =>
    placed.map((place, index) => ({ ...place, a: factors[2 * index] as Tensor, b: factors[2 * index + 1] as Tensor, dropout: index === 1 ? null : dropout }));

  test.each([null, { rate: 0.4, key: [3, 4] as const }])('linearGroup: low-rank updates of stacked and of separate maps, dropout %j', (dropout) => {
    const maps = () => [6, 3].map((outSize) => ({ weight: frozen([outSize, 4], outSize), bias: null }));
    checkGradients(device, [[5, 4], ...factorShapes], (x, ...factors) => {
      const lora = bundleLora(device, updatesOf(factors, dropout), maps().map(({ weight }) => weight), 'f32');
      const [y, z] = linearGroup(x, maps(), { lora }) as [Tensor, Tensor];
      return add(project(y, 11), project(z, 12));
    }, (sum) => sum);
  });

  test.each([null, { rate: 0.4, key: [3, 4] as const }])('linearGroup: decomposed weights, dropout %j', (dropout) => {
    // Norms count as constants, so magnitudes follow them here: the gain stays what it is while factors move.
    const magnitudeShapes = [[2], [3], [3]];
    const run = (follow: boolean) => (x: Tensor, ...rest: Tensor[]) => {
      const factors = rest.slice(0, 6);
      const maps = [6, 3].map((outSize) => ({ weight: frozen([outSize, 4], outSize), bias: device.tensor(values(outSize, 9), [outSize], 'f32') }));
      const weights = maps.map(({ weight }) => weight);
      const squares = weights.map(outputSquares);
      const updates = updatesOf(factors, dropout);
      const bundle = (magnitudes: readonly Tensor[]) =>
        bundleLora(device, updates, weights, 'f32', { squares, magnitudes: placed.map(({ map, row }, update) => ({ map, row, update, magnitude: magnitudes[update] as Tensor })) });
      const p = device.primitives;
      const following = () => {
        const { norms } = bundle(magnitudeShapes.map((shape) => p.zeros(shape, 'f32'))).decomposition as { norms: readonly Tensor[] };
        return placed.map(({ map, row }, index) => p.mul(device.tensor(values(magnitudeShapes[index]?.[0] ?? 0, 40 + index), magnitudeShapes[index] ?? [], 'f32'), p.slice(norms[map] as Tensor, [row], magnitudeShapes[index] ?? [])));
      };
      const [y, z] = linearGroup(x, maps, { lora: bundle(follow ? following() : rest.slice(6)) }) as [Tensor, Tensor];
      return add(project(y, 11), project(z, 12));
    };
    checkGradients(device, [[5, 4], ...factorShapes], run(true), (sum) => sum);
    const factors = factorShapes.map((shape, index) => device.tensor(values(size(shape), 20 + index), shape, 'f32'));
    checkGradients(device, [[5, 4], ...magnitudeShapes], (x, ...magnitudes) => run(false)(x, ...factors, ...magnitudes), (sum) => sum);
    for (const factor of factors) factor.dispose();
  });

  test('routedLinearGroup: a low-rank update of its own for every range of rows', () => {
    const weights = [frozenMatrix(device, device.tensor(values(20, 51), [5, 4], 'f32')), frozenMatrix(device, device.tensor(values(12, 52), [3, 4], 'f32'))];
    const maps = weights.map((weight, map) => ({ weight, bias: map === 0 ? device.tensor(values(5, 53), [5], 'f32') : null }));
    // Lanes of 2, 2, 1 and no rows in one stack, rows without an update, and a stack of one lane.
    const lanes = [{ begin: 0, count: 2 }, { begin: 2, count: 2 }, { begin: 5, count: 1 }, { begin: 6, count: 0 }];
    const bundle = (a: Tensor, b: Tensor) => bundleLora(device, [{ a, b, scale: 1.5, map: 0, row: 1, dropout: null }], weights, 'f32');
    const shapes = [[8, 4], ...lanes.flatMap(() => [[2, 4], [2, 3]]), [1, 4], [1, 2]];
    const bundles = (factors: readonly Tensor[]) => [...lanes.map((_, lane) => bundle(factors[2 * lane] as Tensor, factors[2 * lane + 1] as Tensor)), bundle(factors[8] as Tensor, factors[9] as Tensor)];
    const run = (x: Tensor, ...factors: Tensor[]) => {
      const all = bundles(factors);
      return routedLinearGroup(x, maps, [{ stack: stackBundles(all.slice(0, 4)), lanes }, { stack: stackBundles(all.slice(4)), lanes: [{ begin: 6, count: 2 }] }]);
    };
    checkGradients(device, shapes.slice(0, 7), (x, ...factors) => concatColumns(run(x, ...factors, ...shapes.slice(7).map((shape, i) => device.tensor(values(size(shape), 70 + i), shape, 'f32')))));
    device.scope(() => {
      const [x, ...factors] = shapes.map((shape, i) => device.tensor(values(size(shape), 60 + i), shape, 'f32')) as [Tensor, ...Tensor[]];
      const all = bundles(factors);
      const [y] = run(x, ...factors) as [Tensor];
      const row = (index: number) => device.primitives.slice(x, [index, 0], [1, 4]);
      [0, 0, 1, 1, null, 2, 4, 4].forEach((lane, index) => {
        const lora = lane === null ? null : (all[lane] ?? null);
        const [alone] = linearGroup(row(index), maps, { lora }) as [Tensor];
        device.readFloats(alone).forEach((value, column) => expect(device.readFloats(y)[index * 5 + column]).toBeCloseTo(value, 5));
      });
    });
    checkGradients(device, [[8, 4], [8, 5]], (x, residual) => {
      const [a, b] = [device.tensor(values(8, 71), [2, 4], 'f32'), device.tensor(values(6, 72), [2, 3], 'f32')];
      return routedLinearGroup(x, maps.slice(0, 1), [{ stack: stackBundles([bundle(a, b)]), lanes: [{ begin: 3, count: 4 }] }], residual)[0] as Tensor;
    });
    for (const { weight, bias } of maps) for (const tensor of [weight.value, bias]) tensor?.dispose();
  });

  test('routedLinearGroup: factors that are lanes give what bundles of the lanes give', () => {
    const weights = [frozen([5, 4], 51), frozen([3, 4], 52)];
    const maps = weights.map((weight) => ({ weight, bias: null }));
    // Rows stand in another order than lanes, and one lane has none.
    const lanes = [{ begin: 4, count: 2 }, { begin: 0, count: 2 }, { begin: 0, count: 0 }];
    const shapes = [[6, 4], [3, 2, 4], [3, 2, 3], [3, 1, 4], [3, 1, 3]];
    const scales = [[2, 0.5, 1], [3, 3, 3]] as const;
    const places = [{ map: 0, row: 1 }, { map: 1, row: 0 }];
    const run = (x: Tensor, ...factors: Tensor[]) => {
      const updates = places.map((place, index) => ({ ...place, a: factors[2 * index] as Tensor, b: factors[2 * index + 1] as Tensor, scales: scales[index] as readonly number[] }));
      return routedLinearGroup(x, maps, [{ stack: laneStack(device, updates, weights, 'f32'), lanes }]);
    };
    checkGradients(device, shapes, (x, ...factors) => concatColumns(run(x, ...factors)));
    device.scope(() => {
      const p = device.primitives;
      const [x, ...factors] = shapes.map((shape, i) => device.tensor(values(size(shape), 60 + i), shape, 'f32')) as [Tensor, ...Tensor[]];
      const laneOf = (whole: Tensor, lane: number) => p.reshape(p.slice(whole, [lane, 0, 0], [1, whole.dim(1), whole.dim(2)]), [whole.dim(1), whole.dim(2)]);
      const bundles = lanes.map((_, lane) => bundleLora(device, places.map((place, index) => ({ ...place, a: laneOf(factors[2 * index] as Tensor, lane), b: laneOf(factors[2 * index + 1] as Tensor, lane), scale: scales[index]?.[lane] ?? NaN, dropout: null })), weights, 'f32'));
      const wanted = routedLinearGroup(x, maps, [{ stack: stackBundles(bundles), lanes }]);
      run(x, ...factors).forEach((y, map) => expect(device.readFloats(y)).toEqual(device.readFloats(wanted[map] as Tensor)));
    });
    for (const { value } of weights) value.dispose();
  });

  test('linearGroup: shifts of some outputs', () => {
    checkGradients(device, [[5, 4], [2, 4], [2, 3], [3], [2]], (x, a, b, first, second) => {
      const weight = frozen([6, 4], 6);
      const shifts = [{ value: first, scale: 2, map: 0, row: 1 }, { value: second, scale: 1, map: 0, row: 2 }];
      return linearGroup(x, [{ weight, bias: null }], { lora: bundleLora(device, [{ a, b, scale: 1, map: 0, row: 3, dropout: null }], [weight], 'f32', { shifts }) })[0] as Tensor;
    });
  });

  test('linearGroup: decomposed weights are (W + s B A) of the given row lengths', () => {
    device.scope(() => {
      const p = device.primitives;
      const [x, plain] = [device.tensor(values(20, 1), [5, 4], 'f32'), device.tensor(values(24, 7), [6, 4], 'f32')];
      const weight = frozen([6, 4], 7);
      const [a, b, m] = [device.tensor(values(8, 2), [2, 4], 'f32'), device.tensor(values(12, 3), [2, 6], 'f32'), device.tensor(values(6, 4), [6], 'f32')];
      const lora = bundleLora(device, [{ a, b, scale: 2, map: 0, row: 0, dropout: null }], [weight], 'f32', { magnitudes: [{ magnitude: m, map: 0, row: 0, update: 0 }], squares: [outputSquares(weight)] });
      const updated = p.add(plain, p.scale(p.matMul(b, a, true, false), 2)); // [6, 4]
      const lengths = p.unary('sqrt', p.reduce('sum', p.unary('square', updated), [1], true)); // [6, 1]
      const expected = device.readFloats(p.matMul(x, p.mul(updated, p.div(p.reshape(m, [6, 1]), lengths)), false, true));
      device.readFloats(linearGroup(x, [{ weight, bias: null }], { lora })[0] as Tensor).forEach((value, i) => expect(value).toBeCloseTo(expected[i] ?? NaN, 4));
    });
  });

  test('linearGroup is x Wᵀ + scale (x Aᵀ) Bᵀ', () => {
    device.scope(() => {
      const p = device.primitives;
      const [x, weight] = [device.tensor(values(20, 1), [5, 4], 'f32'), frozen([6, 4], 7)];
      const factors = factorShapes.map((shape, index) => device.tensor(values(size(shape), 20 + index), shape, 'f32'));
      const updates = updatesOf(factors, null).slice(0, 2);
      const [y] = linearGroup(x, [{ weight, bias: null }], { lora: bundleLora(device, updates, [weight], 'f32') }) as [Tensor];
      const parts = updates.map(({ a, b, scale: factor }) => p.scale(p.matMul(p.matMul(x, a, false, true), b), factor)); // [5, 2] and [5, 3]
      const update = p.concat([p.zeros([5, 1], 'f32'), ...parts], 1);
      const expected = device.readFloats(p.add(multiplyForward(x, weight), update));
      device.readFloats(y).forEach((value, i) => expect(value).toBeCloseTo(expected[i] ?? NaN, 5));
    });
  });

  test('headCrossEntropy: gradient, and the same loss for any chunk size', () => {
    const labels = Int32Array.of(3, -100, 0, 6, -100, 2);
    const lossWith = (chunkRows: number) => (hidden: Tensor) => headCrossEntropy(hidden, frozen([7, 4], 3), labels, { scale: 0.25, chunkRows }).loss;
    checkGradients(device, [[6, 4]], lossWith(3), (loss) => loss);
    checkGradients(device, [[6, 4]], (hidden) => headCrossEntropy(hidden, { ...frozen([7, 4], 3), softcap: 0.8 }, labels, { scale: 0.25 }).loss, (loss) => loss);
    device.scope(() => {
      const hidden = device.tensor(values(24, 1), [6, 4], 'f32');
      const [whole, parts] = [lossWith(100)(hidden), lossWith(1)(hidden)].map((loss) => device.readFloats(loss)[0] ?? NaN);
      expect(parts).toBeCloseTo(whole ?? 0, 5);
    });
  });

  test('headCrossEntropy: an adapted head', () => {
    const labels = Int32Array.of(1, -100, 5, 2, 0);
    for (const chunkRows of [2, 100]) {
      const loss = (x: Tensor, head: OutputHead) => headCrossEntropy(x, head, labels, { scale: 0.5, chunkRows }).loss;
      checkGradients(device, [[5, 4], [6, 4]], (x, table) => loss(x, { ...frozen([6, 4], 3), softcap: 2, adapted: { table, lora: null } }), (y) => y);
      checkGradients(device, [[5, 4], [2, 4], [2, 6]], (x, a, b) => {
        const head = frozen([6, 4], 3);
        return loss(x, { ...head, adapted: { table: null, lora: bundleLora(device, [{ a, b, scale: 1.5, map: 0, row: 0, dropout: null }], [head], 'f32') } });
      }, (y) => y);
    }
  });

  test('headRowObjective: a loss that bends with the rows, on a frozen and an adapted head', () => {
    const labels = Int32Array.of(3, -100, 0, 5, 1);
    // tanh(l0 - l1) + 0.3 (l2 - l3)²
    const judge = ([a = 0, b = 0, c = 0, d = 0]: Float32Array) => {
      const [t, u] = [Math.tanh(a - b), c - d];
      return { value: t + 0.3 * u * u, slopes: Float32Array.of(1 - t * t, t * t - 1, 0.6 * u, -0.6 * u) };
    };
    for (const chunkRows of [3]) {
      const loss = (x: Tensor, head: OutputHead) => headRowObjective(x, head, labels, judge, { chunkRows });
      checkGradients(device, [[5, 4]], (x) => loss(x, frozen([6, 4], 3)), (y) => y);
      checkGradients(device, [[5, 4]], (x) => loss(x, { ...frozen([6, 4], 3), softcap: 0.8 }), (y) => y);
      checkGradients(device, [[5, 4], [6, 4]], (x, table) => loss(x, { ...frozen([6, 4], 3), softcap: 2, adapted: { table, lora: null } }), (y) => y);
      checkGradients(device, [[5, 4], [2, 4], [2, 6]], (x, a, b) => {
        const head = frozen([6, 4], 3);
        return loss(x, { ...head, adapted: { table: null, lora: bundleLora(device, [{ a, b, scale: 1.5, map: 0, row: 0, dropout: null }], [head], 'f32') } });
      }, (y) => y);
    }
  });

  test('headRowObjective: the sum of the rows is headCrossEntropy', () => {
    const labels = Int32Array.of(3, -100, 0, 5, 1);
    device.scope(() => {
      const x = device.tensor(values(20, 1), [5, 4], 'f32');
      const sum = headRowObjective(x, frozen([6, 4], 3), labels, (losses) => ({ value: losses.reduce((a, b) => a + b, 0), slopes: new Float32Array(losses.length).fill(1) }));
      const { loss } = headCrossEntropy(x, frozen([6, 4], 3), labels, { scale: 1 });
      expect(device.readFloats(sum)[0]).toBeCloseTo(device.readFloats(loss)[0] ?? NaN, 5);
    });
  });

  test('replaceRows and embeddingLora', () => {
    checkGradients(device, [[4, 3], [2, 3]], (x, table) => replaceRows(x, table, Int32Array.of(1, -1, 0, 1), 2));
    checkGradients(device, [[3, 3], [4, 3]], (x, table) => add(scale(x, 2), replaceRows(x, table, Int32Array.of(3, 0, 3), 1)));
    checkGradients(device, [[4, 3], [2, 5], [2, 3]], (x, a, b) => embeddingLora(x, a, b, Int32Array.of(4, 0, 4, 2), 1.5));
    device.scope(() => {
      const y = replaceRows(device.tensor(Float32Array.of(1, 2, 3), [3, 1], 'f32'), device.tensor(Float32Array.of(7, 8), [2, 1], 'f32'), Int32Array.of(1, -1, 0), 2);
      expect([...device.readFloats(y)]).toEqual([16, 2, 14]);
    });
  });

  test('headLogits bends logits that have a cap', () => {
    device.scope(() => {
      const head = frozenMatrix(device, device.tensor(Float32Array.of(1, 0, 0, 4), [2, 2], 'f32'));
      const hidden = device.tensor(Float32Array.of(1, 2), [1, 2], 'f32');
      expect([...device.readFloats(headLogits(hidden, head))]).toEqual([1, 8]);
      [1, 8].forEach((logit, i) => expect(device.readFloats(headLogits(hidden, { ...head, softcap: 2 }))[i]).toBeCloseTo(2 * Math.tanh(logit / 2), 5));
    });
  });

  test('headCrossEntropy counts rows whose label is likeliest', () => {
    device.scope(() => {
      const eye = frozenMatrix(device, device.tensor(Float32Array.of(1, 0, 0, 0, 1, 0, 0, 0, 1), [3, 3], 'f32'));
      const hidden = device.tensor(Float32Array.of(2, 0, 0, 0, 2, 0, 0, 0, 2), [3, 3], 'f32');
      const { correct } = headCrossEntropy(hidden, eye, Int32Array.of(0, 2, -100), { scale: 1 });
      expect(device.readFloats(correct)[0]).toBe(1);
    });
  });

  test('checkpoint gives the gradients of the plain computation, captured parameters included', () => {
    const run = (wrap: boolean) =>
      device.scope(() => {
        const x = device.tensor(values(24, 1), [6, 4], 'f32');
        const a = device.tensor(values(8, 2), [2, 4], 'f32');
        const b = device.tensor(values(8, 3), [2, 4], 'f32');
        const weight = frozen([4, 4], 7);
        const block = () => {
          const lora = bundleLora(device, [{ a, b, scale: 1, map: 0, row: 0, dropout: { rate: 0.3, key: [1, 2] } }], [weight], 'f32');
          return swiglu(x, linearGroup(x, [{ weight, bias: null }], { lora })[0] as Tensor);
        };
        const { gradients: grads } = gradients(device, [a, b], () => ({ loss: project(wrap ? checkpoint(device, [x], block) : block(), 4) }));
        return grads.map((g) => (g ? [...device.readFloats(g)] : null));
      });
    expect(run(true)).toEqual(run(false));
    expect(run(true)[0]).not.toBeNull();
  });

  test('nothing is recorded below the first parameter', () => {
    let backwardRuns = 0;
    const counted = (x: Tensor) =>
      singleOutputOp(device, {
        name: 'counted',
        inputs: [x],
        run: () => ({ outputs: [device.primitives.scale(x, 2)], save: [] }),
        backward: () => (backwardRuns++, [null]),
      });
    device.scope(() => {
      const x = device.tensor(values(4, 1), [4], 'f32');
      const parameter = device.tensor(values(4, 2), [4], 'f32');
      gradients(device, [parameter], () => ({ loss: project(counted(add(counted(counted(x)), parameter)), 1) }));
    });
    expect(backwardRuns).toBe(1);
  });
});

/** Scalars are kept by the device on purpose; they must not count as leaks. */
function scalarCount(device: Device): number {
  return device.cachedScalars;
}
