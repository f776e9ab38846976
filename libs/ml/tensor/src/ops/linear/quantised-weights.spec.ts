/** Quantised matrices against the same weights dequantised on the host, bit by bit, and as part of a map that is trained. */
import type { Device } from '../../device';
import { TEST_BACKENDS, testDevice } from '../../testing';
import { gradients, singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';
import { frozenMatrix, multiplyBack, multiplyForward, outputSquares, quantisedMatrix, selectOutputs, type FrozenMatrix } from './frozen-matrix';
import { linearGroup } from './linear-group';
import { bundleLora } from './lora-bundle';
import { tensorsOf, type QuantisedWeights } from './quantised-weights';
import { noise, quantisedCase } from './testing';

/** Sum of squares. */
function energy(y: Tensor): Tensor {
  const p = y.device.primitives;
  return singleOutputOp(y.device, {
    name: 'energy',
    inputs: [y],
    run: () => ({ outputs: [p.sumAll(p.unary('square', y))], save: [y] }),
    backward: ({ gradients: [g = null], saved: [value] }) => [g && value ? p.mul(p.scale(value, 2), g) : null],
  });
}

describe.each(TEST_BACKENDS)('quantised weights on %s', (backend) => {
  let device: Device;
  const handles = () => device.memory.liveHandles - device.cachedScalars;
  const floats = (x: Tensor): Float32Array => {
    using owned = x;
    return device.readFloats(owned);
  };
  beforeAll(async () => void (device = await testDevice(backend)));

  /** The stacked parts, quantised and as plain numbers. */
  function lend(shapes: readonly (readonly [number, number, boolean, number?])[], use: (matrix: FrozenMatrix, plain: FrozenMatrix, dense: Float32Array) => void): void {
    const before = handles();
    const cases = shapes.map(([outSize, inSize, double, blockSize]) => quantisedCase(device, outSize, inSize, double, blockSize));
    const dense = Float32Array.from(cases.flatMap((each) => [...each.dense]));
    const matrix = quantisedMatrix(cases.map(({ weights }) => weights) as [QuantisedWeights, ...QuantisedWeights[]]);
    const plain = frozenMatrix(device, device.tensor(dense.slice(), [matrix.outSize, matrix.inSize], 'f32'));
    const held = handles();
    use(matrix, plain, dense);
    expect(handles()).toBe(held);
    for (const { weights } of cases) for (const tensor of tensorsOf(weights)) tensor.dispose();
    plain.value.dispose();
    expect(handles()).toBe(before);
  }

  test.each([
    ['whole blocks', [[4, 64, false]]],
    ['a short last block', [[3, 50, false]]],
    ['an odd number of weights', [[3, 7, false]]],
    ['doubly quantised, short', [[5, 130, true]]],
    ['blocks of 128', [[4, 100, true, 128]]],
    ['stacked, blocks do not cross', [[3, 50, true], [1, 50, false], [7, 50, true]]],
  ] as const)('%s', (_name, shapes) => {
    lend(shapes, (matrix, plain, dense) => {
      const selected = selectOutputs(matrix, 0, matrix.outSize);
      expect(floats(selected.value)).toEqual(dense);
      const x = device.tensor(Float32Array.from({ length: 2 * matrix.inSize }, (_, i) => noise(i, 1)), [2, matrix.inSize], 'f32');
      const g = device.tensor(Float32Array.from({ length: 2 * matrix.outSize }, (_, i) => noise(i, 2)), [2, matrix.outSize], 'f32');
      expect(floats(multiplyForward(x, matrix))).toEqual(floats(multiplyForward(x, plain)));
      expect(floats(multiplyBack(g, matrix))).toEqual(floats(multiplyBack(g, plain)));
      for (const [i, square] of floats(outputSquares(matrix)).entries()) {
        const row = dense.subarray(i * matrix.inSize, (i + 1) * matrix.inSize);
        expect(square).toBeCloseTo(row.reduce((sum, value) => sum + value * value, 0), 3);
      }
      x.dispose();
      g.dispose();
    });
  });

  test('some outputs: a whole part, or rows across parts', () => {
    lend([[3, 50, true], [4, 50, false]], (matrix, _plain, dense) => {
      expect(floats(selectOutputs(matrix, 3, 4).value)).toEqual(dense.slice(150));
      expect(floats(selectOutputs(matrix, 2, 3).value)).toEqual(dense.slice(100, 250));
    });
  });

  test('a low-rank update learns on it as on the same weights in f32', () => {
    lend([[6, 50, true], [4, 50, true]], (matrix, plain) => {
      const [x, a, b] = [[1, 50], [2, 50], [2, 6]].map((shape, seed) => device.tensor(Float32Array.from({ length: (shape[0] as number) * (shape[1] as number) }, (_, i) => noise(i, seed + 20) - 0.5), shape, 'f32')) as [Tensor, Tensor, Tensor];
      const learned = (weight: FrozenMatrix) =>
        device.scope(() => {
          const bundle = bundleLora(device, [{ a, b, scale: 2, map: 0, row: 0, dropout: null }], [weight], 'f32');
          const { result, gradients: all } = gradients(device, [x, a, b], () => {
            const [y] = linearGroup(x, [{ weight, bias: null }], { lora: bundle });
            return { loss: energy(y as Tensor) };
          });
          return [result.loss, ...all].map((each) => (each ? device.readFloats(each) : null));
        });
      expect(learned(matrix)).toEqual(learned(plain));
      for (const tensor of [x, a, b]) tensor.dispose();
    });
  });

  test('a product needs the dequantised matrix only while it runs', () => {
    const before = device.memory.liveBytes;
    lend([[64, 256, true]], (matrix) => {
      const bytes = (matrix.quantised ?? []).flatMap(tensorsOf).reduce((sum, { storage }) => sum + storage.bytes, 0);
      // 4 + 8/64 bits a weight; here maxima of four scales each, and the two tables.
      expect(bytes).toBe((64 * 256) / 2 + 256 + 4 * 64 + 2048 + 1024);
      const x = device.tensor(new Float32Array(256), [1, 256], 'f32');
      const idle = device.memory.liveBytes;
      multiplyForward(x, matrix).dispose();
      expect(device.memory.liveBytes).toBe(idle);
      x.dispose();
    });
    expect(device.memory.liveBytes).toBe(before);
  });
});
