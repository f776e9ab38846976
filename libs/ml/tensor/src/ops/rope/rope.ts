import { invariant } from '@tunefleet/foundation';
import type { Device } from '../../device';
import type { FloatDType } from '../../dtype';
import { singleOutputOp } from '../../tape/perform';
import type { Tensor } from '../../tensor';

export interface RopeTables {
  /** [T, D], or [B, 1, T, D] when rows have their own positions. */
  readonly cos: Tensor;
  readonly sin: Tensor;
  /** [D, D] signed permutation: x · rotation = concat(-x[D/2:], x[:D/2]). */
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
  const half = inverseFrequencies.length;
  const width = 2 * half;
  const cos = new Float32Array(positions.length * width);
  const sin = new Float32Array(positions.length * width);
  for (let i = 0; i < positions.length; i++) {
    for (let j = 0; j < half; j++) {
      const angle = (positions[i] ?? 0) * (inverseFrequencies[j] ?? 0);
      const at = i * width + j;
      cos[at] = cos[at + half] = Math.cos(angle);
      sin[at] = sin[at + half] = Math.sin(angle);
    }
  }
  const rotation = new Float32Array(width * width);
  for (let j = 0; j < half; j++) {
    rotation[(j + half) * width + j] = -1;
    rotation[j * width + j + half] = 1;
  }
  const shape = rows === 1 ? [columns, width] : [rows, 1, columns, width];
  invariant(positions.length === rows * columns, 'one position per token');
  return device.scope(() => {
    const make = (data: Float32Array, size: readonly number[]) => device.primitives.cast(device.tensor(data, size, 'f32'), dtype);
    return { cos: make(cos, shape), sin: make(sin, shape), rotation: make(rotation, [width, width]) };
  });
}

/**
 * Rotary positions in the Hugging Face pairing (channel i with i + D/2): y = x * cos + rotateHalf(x) * sin.
 * @param x [B, H, T, D]
 * @see Su et al. 2021, arXiv:2104.09864
 */
export function rope(x: Tensor, tables: RopeTables): Tensor {
  const p = x.device.primitives;
  const rotate = (value: Tensor, back: boolean): Tensor => {
    const flat = p.reshape(value, [-1, x.dim(-1)]);
    return p.reshape(p.matMul(flat, tables.rotation, false, back), x.shape);
  };
  return singleOutputOp(x.device, {
    name: 'rope',
    inputs: [x],
    run: () => ({ outputs: [p.add(p.mul(x, tables.cos), p.mul(rotate(x, false), tables.sin))], save: [tables.cos, tables.sin, tables.rotation] }),
    backward: ({ gradients: [g] }) => [g ? p.add(p.mul(g, tables.cos), rotate(p.mul(g, tables.sin), true)) : null],
  });
}
