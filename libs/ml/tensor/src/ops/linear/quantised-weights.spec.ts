/** Quantised matrices against the same weights dequantised on the host, bit by bit, and as part of a map that is trained. */
import type { Device } from '../../device';
import { TEST_BACKENDS, testDevice } from '../../testing';
import { gradients, singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';
import { frozenMatrix, multiplyBack, multiplyForward, outputSquares, quantisedMatrix, selectOutputs, type FrozenMatrix } from './frozen-matrix';
import { linearGroup } from './linear-group';
import { bundleLora } from './lora-bundle';
import { tensorsOf, type BlockScales, type QuantisedWeights } from './quantised-weights';

const CODES = Float32Array.from({ length: 16 }, (_, code) => Math.sin(code * 1.7));
const MAP = Float32Array.from({ length: 256 }, (_, code) => (code - 127) / 129);
const noise = (i: number, seed: number): number => Math.abs(Math.sin(i * 12.9898 + seed * 78.233) * 43758.5453) % 1;

interface Case {
  readonly weights: QuantisedWeights;
  /** [out, in] row-major. */
  readonly dense: Float32Array;
}

function makeCase(device: Device, outSize: number, inSize: number, double: boolean, blockSize = 64): Case {
  const count = outSize * inSize;
  const blocks = Math.ceil(count / blockSize);
  const packed = Uint8Array.from({ length: Math.ceil(count / 2) }, (_, i) => Math.floor(noise(i, outSize) * 256));
  packed[0] = 255;
  const plain = Float32Array.from({ length: blocks }, (_, i) => 0.1 + noise(i, 3));
  const codes = Uint8Array.from({ length: blocks }, (_, i) => Math.floor(noise(i, 5) * 256));
  const maxima = Float32Array.from({ length: Math.ceil(blocks / 4) }, (_, i) => 0.2 + noise(i, 7));
  const offset = Math.fround(0.31);
  const factors = double ? Float32Array.from(codes, (code, i) => Math.fround((MAP[code] as number) * (maxima[i >> 2] as number)) + offset) : plain;
  const dense = Float32Array.from({ length: count }, (_, i) => {
    const byte = packed[i >> 1] as number;
    return (CODES[i & 1 ? byte & 15 : byte >> 4] as number) * (factors[Math.floor(i / blockSize)] as number);
  });
  const table = Float32Array.from({ length: 512 }, (_, i) => CODES[i & 1 ? (i >> 1) & 15 : i >> 5] as number);
  const scales: BlockScales = double
    ? { codes: device.tensor(codes.slice(), [blocks], 'u8'), map: device.tensor(MAP.slice(), [256], 'f32'), maxima: device.tensor(maxima.slice(), [maxima.length], 'f32'), offset, blockSize: 4 }
    : { values: device.tensor(plain.slice(), [blocks], 'f32') };
  return { dense, weights: { packed: device.tensor(packed.slice(), [packed.length], 'u8'), table: device.tensor(table, [256, 2], 'f32'), scales, blockSize, outSize, inSize } };
}

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
    const cases = shapes.map(([outSize, inSize, double, blockSize]) => makeCase(device, outSize, inSize, double, blockSize));
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
