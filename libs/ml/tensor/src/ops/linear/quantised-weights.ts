import type { Primitives } from '../../primitives';
import type { Tensor } from '../../tensor';

/** One f32 factor per block of weights, plain or quantised once more: map[code] * maximum + offset. */
export type BlockScales =
  | { readonly values: Tensor }
  | {
      /** [blocks] u8 */
      readonly codes: Tensor;
      /** [256] f32 */
      readonly map: Tensor;
      /** f32, one per `blockSize` scales. */
      readonly maxima: Tensor;
      readonly offset: number;
      readonly blockSize: number;
    };

/** A weight matrix [out, in] of two weights per byte, cut into blocks row by row. */
export interface QuantisedWeights {
  /** [ceil(out * in / 2)] u8 */
  readonly packed: Tensor;
  /** [256, 2] f32: what the two codes of a byte stand for. */
  readonly table: Tensor;
  readonly scales: BlockScales;
  /** Weights per scale, even. */
  readonly blockSize: number;
  readonly outSize: number;
  readonly inSize: number;
}

/** What holds the weights. */
export function tensorsOf({ packed, table, scales }: QuantisedWeights): Tensor[] {
  return [packed, table, ...('values' in scales ? [scales.values] : [scales.codes, scales.map, scales.maxima])];
}

/** Matrices one below the other, [sum of out, in] f32, the caller's. Nothing else is left on the device. */
export function dequantise(parts: readonly QuantisedWeights[]): Tensor {
  const [first] = parts as readonly [QuantisedWeights];
  const { device } = first.packed;
  return device.scope(() => {
    const weights = parts.map((part) => dequantiseOne(device.primitives, part));
    return weights.length === 1 ? (weights[0] as Tensor) : device.primitives.concat(weights, 0);
  });
}

function dequantiseOne(p: Primitives, weights: QuantisedWeights): Tensor {
  const { packed, table, scales, blockSize, outSize, inSize } = weights;
  const { fused } = packed.device;
  if (fused && fitsFused(weights)) return fused.dequantise(weights);
  using factors = scalesOf(p, scales);
  using bytes = p.cast(packed, 'i32');
  using pairs = p.gather(table, bytes); // [bytes, 2]
  using values = p.reshape(pairs, [pairs.dim(0) * 2]);
  using scaled = timesBlocks(p, values, factors, blockSize);
  return shaped(p, scaled, [outSize, inSize]);
}

/** Whether fused ops can read the weights: rows then begin at a byte. */
export function fitsFused({ inSize, scales }: QuantisedWeights): boolean {
  return inSize % 2 === 0 && (!('values' in scales) || scales.values.dtype === 'f32');
}

function scalesOf(p: Primitives, scales: BlockScales): Tensor {
  if ('values' in scales) return p.cast(scales.values, 'f32');
  const { codes, map, maxima, offset, blockSize } = scales;
  using indices = p.cast(codes, 'i32');
  using steps = p.gather(map, indices); // [blocks]
  using scaled = timesBlocks(p, steps, maxima, blockSize);
  using centred = shaped(p, scaled, codes.shape);
  return p.add(centred, centred.device.scalar(offset, 'f32'));
}

/** Every block of `values` times its factor, [factors, blockSize]; behind the last value there are zeros. */
function timesBlocks(p: Primitives, values: Tensor, factors: Tensor, blockSize: number): Tensor {
  const blocks = factors.dim(0);
  const missing = blocks * blockSize - values.dim(0);
  using padding = missing > 0 ? p.zeros([missing], 'f32') : null;
  using whole = padding ? p.concat([values, padding], 0) : p.reshape(values, [blocks * blockSize]);
  using rows = p.reshape(whole, [blocks, blockSize]);
  using column = p.reshape(factors, [blocks, 1]);
  return p.mul(rows, column);
}

/** The first elements of a matrix, in another shape. */
function shaped(p: Primitives, x: Tensor, shape: readonly number[]): Tensor {
  const count = shape.reduce((product, size) => product * size, 1);
  using flat = p.reshape(x, [x.dim(0) * x.dim(1)]);
  using some = count < flat.dim(0) ? p.slice(flat, [0], [count]) : p.reshape(flat, [count]);
  return p.reshape(some, shape);
}
