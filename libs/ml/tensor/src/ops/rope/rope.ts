import { invariant } from '@tunefleet/foundation';
import type { Device } from '../../device';
import type { FloatDType } from '../../dtype';
import type { Primitives } from '../../primitives';
import { singleOutputOp } from '../../tape/perform';
import { isFused } from '../../fused-primitives';
import type { Tensor } from '../../tensor';

/** Of several positions, or of one alone. */
export type RopeTables = PositionTables | SingleRotation;

export interface PositionTables {
  /** [T, D], or [B, 1, T, D] when rows have their own positions. */
  readonly cos: Tensor;
  /** As `cos`; negative in the first half of the channels, which is the sign of the rotation. */
  readonly sin: Tensor;
}

/** The rotation to one position as a matrix: one product in place of five ops, where there is no fused one. */
export interface SingleRotation {
  /** [1, 1, D, D], right factor */
  readonly rotation: Tensor;
}

/**
 * Cosines and sines of every position, computed in double precision on the host.
 * @param inverseFrequencies [D/2]
 * @param positions rows * columns positions, row-major
 * @returns tables owned by the caller
 */
export function ropeTables(
  device: Device,
  options: { inverseFrequencies: Float64Array; positions: Int32Array; rows: number; columns: number; dtype: FloatDType },
): RopeTables {
  const { inverseFrequencies, positions, rows, columns, dtype } = options;
  invariant(positions.length === rows * columns, 'one position per token');
  if (positions.length === 1 && !(device.fused && dtype === 'f32')) return { rotation: rotationTo(device, positions[0] ?? 0, inverseFrequencies, dtype) };
  const half = inverseFrequencies.length;
  const width = 2 * half;
  const cos = new Float32Array(positions.length * width);
  const sin = new Float32Array(positions.length * width);
  for (let i = 0; i < positions.length; i++) {
    for (let j = 0; j < half; j++) {
      const angle = (positions[i] ?? 0) * (inverseFrequencies[j] ?? 0);
      const at = i * width + j;
      cos[at] = cos[at + half] = Math.cos(angle);
      sin[at + half] = Math.sin(angle);
      sin[at] = -Math.sin(angle);
    }
  }
  const shape = rows === 1 ? [columns, width] : [rows, 1, columns, width];
  return device.scope(() => {
    const make = (data: Float32Array) => device.primitives.cast(device.tensor(data, shape, 'f32'), dtype);
    return { cos: make(cos), sin: make(sin) };
  });
}

/**
 * Rotary positions in the Hugging Face pairing (channel i with i + D/2): y = x * cos + swapHalves(x) * sin.
 * @param x [B, H, T, D]; with the rotation to one position, T = 1 and all rows stand there
 * @see Su et al. 2021, arXiv:2104.09864
 */
export function rope(x: Tensor, tables: RopeTables): Tensor {
  const p = x.device.primitives;
  return singleOutputOp(x.device, {
    name: 'rope',
    inputs: [x],
    run: () => ({ outputs: [rotated(p, x, tables)], save: Object.values(tables) }),
    backward: ({ gradients: [g] }) => [g ? rotatedBack(p, g, tables) : null],
  });
}

function rotated(p: Primitives, x: Tensor, tables: RopeTables): Tensor {
  if ('rotation' in tables) return p.batchMatMul(x, tables.rotation);
  if (isFused(x)) return x.device.fused.rope(x, tables.cos, tables.sin, false);
  return p.add(p.mul(x, tables.cos), p.mul(swapHalves(p, x), tables.sin));
}

function rotatedBack(p: Primitives, g: Tensor, tables: RopeTables): Tensor {
  if ('rotation' in tables) return p.batchMatMul(g, tables.rotation, false, true);
  if (isFused(g)) return g.device.fused.rope(g, tables.cos, tables.sin, true);
  return p.add(p.mul(g, tables.cos), swapHalves(p, p.mul(g, tables.sin)));
}

function rotationTo(device: Device, position: number, inverseFrequencies: Float64Array, dtype: FloatDType): Tensor {
  const half = inverseFrequencies.length;
  const width = 2 * half;
  const matrix = new Float32Array(width * width);
  inverseFrequencies.forEach((frequency, low) => {
    const [cosine, sine, high] = [Math.cos(position * frequency), Math.sin(position * frequency), low + half];
    matrix[low * width + low] = matrix[high * width + high] = cosine;
    matrix[low * width + high] = sine;
    matrix[high * width + low] = -sine;
  });
  return device.scope(() => device.primitives.cast(device.tensor(matrix, [1, 1, width, width], 'f32'), dtype));
}

function swapHalves(p: Primitives, x: Tensor): Tensor {
  const half = x.dim(-1) / 2;
  const [low, high] = p.split(x, [half, half], 3);
  invariant(low && high, 'two halves');
  return p.concat([high, low], 3);
}
