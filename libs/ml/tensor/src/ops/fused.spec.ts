/** What the processor's own kernels give against the same composed of TensorFlow's ops: values and gradients, on shapes that are and are not multiples of their tiles. */
import type { Device } from '../device';
import { openDevice } from '../open-device';
import { gradients, singleOutputOp } from '../tape/perform';
import type { Tensor } from '../tensor';
import { headCrossEntropy } from './head-cross-entropy/head-cross-entropy';
import { singleQueryAttention, slotMask } from './attention/single-query';
import { frozenMatrix, multiplyForward } from './linear/frozen-matrix';
import { linearGroup } from './linear/linear-group';
import { bundleLora } from './linear/lora-bundle';
import { rmsNorm } from './rms-norm/rms-norm';
import { ropeTables } from './rope/rope';
import { rotaryHeads } from './rope/rotary-heads';
import { swiglu } from './swiglu/swiglu';

type Shape = readonly number[];

let fused: Device;
let composed: Device;
beforeAll(async () => {
  fused = await openDevice({ backend: 'tensorflow' });
  composed = await openDevice({ backend: 'tensorflow', fused: false });
});

const values = (count: number, seed: number): Float32Array => Float32Array.from({ length: count }, (_, i) => Math.sin(i * 12.9898 + seed * 78.233) * Math.cos(i * 0.37 + seed));

/** Weighted so that every element of every output has a gradient of its own. */
function lossOf(device: Device, outputs: readonly Tensor[]): Tensor {
  const p = device.primitives;
  const weights = outputs.map(({ shape }, seed) => device.tensor(values(shape.reduce((product, size) => product * size, 1), 50 + seed), shape, 'f32'));
  return singleOutputOp(device, {
    name: 'project',
    inputs: outputs,
    run: () => ({ outputs: [p.addAll(outputs.map((output, index) => p.sumAll(p.mul(output, weights[index] as Tensor))))], save: weights }),
    backward: ({ gradients: [g], saved }) => saved.map((weight) => g ? p.mul(weight, g) : null),
  });
}

/** Outputs and gradients by all inputs. */
function learned(device: Device, shapes: readonly Shape[], fn: (inputs: readonly Tensor[], device: Device) => readonly Tensor[]): Float32Array[] {
  const before = device.memory.liveHandles - device.cachedScalars;
  const all = device.scope(() => {
    const inputs = shapes.map((shape, seed) => device.tensor(values(shape.reduce((product, size) => product * size, 1), seed), shape, 'f32'));
    const { result, gradients: byInput } = gradients(device, inputs, () => {
      const outputs = fn(inputs, device);
      return { loss: lossOf(device, outputs), outputs };
    });
    return [...result.outputs, ...byInput.map((gradient) => gradient ?? device.scalar(0, 'f32'))].map((each) => Float32Array.from(device.readFloats(each)));
  });
  expect(device.memory.liveHandles - device.cachedScalars).toBe(before);
  return all;
}

/** Largest difference, relative to the largest value. */
function difference(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  const most = a.reduce((max, value) => Math.max(max, Math.abs(value)), 1e-3);
  return a.reduce((max, value, index) => Math.max(max, Math.abs(value - (b[index] as number))), 0) / most;
}

function agree(shapes: readonly Shape[], fn: (inputs: readonly Tensor[], device: Device) => readonly Tensor[]): void {
  const [own, plain] = [learned(fused, shapes, fn), learned(composed, shapes, fn)];
  expect(own.length).toBe(plain.length);
  own.forEach((each, index) => expect(difference(each, plain[index] as Float32Array)).toBeLessThan(1e-5));
}

test('this machine has the kernels, or nothing here would compare anything', () => {
  expect(fused.fused).not.toBeNull();
  expect(composed.fused).toBeNull();
});

describe('linear maps', () => {
  // Rows below and above the change from dot products to tiles, and more than are cut at a time; more inputs than a slice and than several have; outputs that fill no panel.
  test.each([
    [1, 16, 8], [2, 13, 5], [3, 576, 33], [5, 7, 3], [32, 40, 17], [33, 40, 17], [70, 385, 35], [129, 800, 17], [40, 24, 3100], [150, 300, 70], [50, 2311, 37], [1550, 12, 33],
  ])('%i rows, %i inputs, %i outputs, with bias, residual and low-rank updates', (rows, size, outputs) => {
    agree([[rows, size], [rows, outputs], [4, size], [4, outputs]], ([x, residual, a, b], device) => {
      const weight = frozenMatrix(device, device.tensor(values(outputs * size, 9), [outputs, size], 'f32'));
      const bias = device.tensor(values(outputs, 10), [outputs], 'f32');
      const lora = bundleLora(device, [{ a: a as Tensor, b: b as Tensor, scale: 0.5, map: 0, row: 0, dropout: null }], [weight], 'f32');
      return linearGroup(x as Tensor, [{ weight, bias }], { lora, residual: residual as Tensor });
    });
  });

  test('several maps of one input share its gradient', () => {
    agree([[40, 24], [3, 24], [3, 20]], ([x, a, b], device) => {
      const maps = [20, 20, 9].map((outputs, seed) => ({ weight: frozenMatrix(device, device.tensor(values(outputs * 24, seed), [outputs, 24], 'f32')), bias: null }));
      const lora = bundleLora(device, [{ a: a as Tensor, b: b as Tensor, scale: 2, map: 1, row: 0, dropout: null }], maps.map(({ weight }) => weight), 'f32');
      return linearGroup(x as Tensor, maps, { lora });
    });
  });

  test('weights in bf16 count as they were rounded', () => {
    for (const rows of [1, 4, 50]) {
      agree([[rows, 24]], ([x], device) => {
        const weight = frozenMatrix(device, device.primitives.cast(device.tensor(values(20 * 24, 3), [20, 24], 'f32'), 'bf16'));
        return linearGroup(x as Tensor, [{ weight, bias: null }]);
      });
    }
  });

  test.each([[9], [70]])('a row is the same bits among %i', (rows) => {
    const x = values(rows * 100, 1);
    const product = (first: number, count: number): Float32Array =>
      fused.scope(() => {
        const weight = frozenMatrix(fused, fused.tensor(values(30 * 100, 2), [30, 100], 'f32'));
        return fused.readFloats(multiplyForward(fused.tensor(x.slice(first * 100, (first + count) * 100), [count, 100], 'f32'), weight)).slice();
      });
    // By dot products up to 32 rows, by tiles above.
    const least = rows > 32 ? 33 : 1;
    const all = product(0, rows);
    for (const first of [0, 2, rows - least]) expect(product(first, least)).toEqual(all.slice(first * 30, (first + least) * 30));
  });
});

test.each([[1, 8], [3, 13], [40, 576], [700, 64]])('a root-mean-square norm of [%i, %i]', (rows, width) => {
  agree([[rows, width]], ([x], device) => [rmsNorm(x as Tensor, device.tensor(values(width, 4), [width], 'f32'), 1e-5)]);
  agree([[rows, width], [width]], ([x, weight]) => [rmsNorm(x as Tensor, weight as Tensor, 1e-5)]);
});

test.each([[1, 5], [9, 300], [40, 1003]])('cross entropy of %i rows over %i tokens', (rows, tokens) => {
  agree([[rows, 12]], ([x], device) => {
    const head = { value: device.tensor(Float32Array.from(values(tokens * 12, 4), (value) => 4 * value), [tokens, 12], 'f32'), layout: 'outIn', outSize: tokens, inSize: 12 } as const;
    const { loss, correct } = headCrossEntropy(x as Tensor, head, Int32Array.from({ length: rows }, (_, row) => (row === 3 ? -100 : (row * 31) % tokens)), { scale: 0.5 });
    return [loss, correct];
  });
});

test.each([[1, 3], [5, 8], [300, 96]])('a gated activation of [%i, %i]', (rows, width) => {
  agree([[rows, width], [rows, width]], ([gate, up], device) => [swiglu(device.primitives.scale(gate as Tensor, 1), up as Tensor)]);
  agree([[rows, width], [rows, width]], ([gate, up]) => [swiglu(gate as Tensor, up as Tensor)]);
});

test('a gated activation far from zero is silu, not a number that is none', () => {
  const run = (x: number): number => fused.scope(() => fused.readFloats(swiglu(fused.tensor(Float32Array.of(x), [1], 'f32'), fused.tensor(Float32Array.of(1), [1], 'f32')))[0] ?? NaN);
  expect(run(200)).toBe(200);
  expect(Math.abs(run(-200))).toBeLessThan(1e-30);
  expect(run(NaN)).toBeNaN();
});

describe.each([[2, 5, 4, 2, 6], [1, 1, 9, 3, 64], [3, 40, 2, 2, 16]])('heads of %i rows of %i tokens, %i and %i of width %i', (batch, time, heads, keyValueHeads, width) => {
  test.each(['all rows alike', 'each row with positions of its own'])('%s', (which) => {
    const own = which !== 'all rows alike';
    agree([[batch * time, (heads + 2 * keyValueHeads) * width]], ([x], device) => {
      const positions = Int32Array.from({ length: (own ? batch : 1) * time }, (_, i) => (i * 7) % 50);
      const tables = ropeTables(device, { inverseFrequencies: Float64Array.from({ length: width / 2 }, (_, i) => 1 / 100 ** ((2 * i) / width)), positions, rows: own ? batch : 1, columns: time, dtype: 'f32' });
      const { q, k, v } = rotaryHeads(x as Tensor, { batch, heads, keyValueHeads }, tables);
      return [q, k, v];
    });
  });
});

describe('attention of one query', () => {
  const run = (device: Device, lengths: Int32Array, softcap: number | null, window?: number): Float32Array =>
    device.scope(() => {
      const [batch, slots, width] = [lengths.length, 70, 12];
      const of = (seed: number, shape: Shape): Tensor => device.tensor(values(shape.reduce((product, size) => product * size, 1), seed), shape, 'f32');
      const mask = slotMask(lengths, slots, window);
      return device.readFloats(
        singleQueryAttention(of(1, [batch, 4, 1, width]), of(2, [batch, 2, slots, width]), of(3, [batch, 2, slots, width]), mask && device.tensor(mask, [mask.length / slots, 1, 1, slots], 'f32'), { scale: 1.5, softcap }),
      ).slice();
    });
  test.each([
    ['every slot seen', [69, 69], null, undefined],
    ['rows of unlike length', [3, 40], null, undefined],
    ['a window', [60, 20], null, 9],
    ['capped scores', [69, 5], 0.8, undefined],
  ] as const)('%s', (_name, lengths, softcap, window) => {
    expect(difference(run(fused, Int32Array.from(lengths), softcap, window), run(composed, Int32Array.from(lengths), softcap, window))).toBeLessThan(1e-5);
  });
});

test('what an op cannot take is refused, and nothing is left over', () => {
  const before = fused.memory.liveHandles - fused.cachedScalars;
  fused.scope(() => {
    const [x, weight] = [fused.tensor(values(6, 1), [2, 3], 'f32'), fused.tensor(values(8, 1), [2, 4], 'f32')];
    expect(() => fused.fused?.linear(x, weight)).toThrow(/\[rows, in\] and \[out, in\]/);
    expect(() => fused.fused?.swiglu(x, weight)).toThrow(/one shape/);
    expect(() => fused.fused?.rmsNorm(x, weight, 1e-5)).toThrow(/one weight per channel/);
  });
  expect(fused.memory.liveHandles - fused.cachedScalars).toBe(before);
});
