import type { Device } from '../../device';
import type { Tensor } from '../../tensor';

/** A frozen weight matrix, in a dtype of its own and kept the way round that this device multiplies fastest. */
export interface FrozenMatrix {
  readonly value: Tensor;
  /** `outIn`: [out, in], as on disk; `inOut`: transposed. */
  readonly layout: 'outIn' | 'inOut';
  readonly outSize: number;
  readonly inSize: number;
}

/** A frozen linear map x Wᵀ + bias. */
export interface FrozenMap {
  readonly weight: FrozenMatrix;
  /** [out] or null. */
  readonly bias: Tensor | null;
}

/** Takes over `weight` [out, in] (disposed by the holder of the result). */
export function frozenMatrix(device: Device, weight: Tensor): FrozenMatrix {
  const [outSize, inSize] = [weight.dim(0), weight.dim(1)];
  if (!device.backend.prefersUntransposedWeights) return { value: weight, layout: 'outIn', outSize, inSize };
  const value = device.primitives.transpose(weight, [1, 0]);
  weight.dispose();
  return { value, layout: 'inOut', outSize, inSize };
}

/** x Wᵀ: [N, in] -> [N, out] in the dtype of `x`. No gradient recorded. */
export function multiplyForward(x: Tensor, weight: FrozenMatrix): Tensor {
  return multiply(x, weight, weight.layout === 'outIn');
}

/** g W: [N, out] -> [N, in] in the dtype of `g`. No gradient recorded. */
export function multiplyBack(g: Tensor, weight: FrozenMatrix): Tensor {
  return multiply(g, weight, weight.layout === 'inOut');
}

/** Some outputs of a map as a map of their own. @returns its `value` is the caller's */
export function selectOutputs(weight: FrozenMatrix, row: number, rows: number): FrozenMatrix {
  const { value, layout, outSize, inSize } = weight;
  if (rows === outSize) return { ...weight, value: value.device.alias(value) };
  const [begin, size] = layout === 'outIn' ? [[row, 0], [rows, inSize]] : [[0, row], [inSize, rows]];
  return { value: value.device.primitives.slice(value, begin as number[], size as number[]), layout, outSize: rows, inSize };
}

/** Square of the Euclidean norm of every output's weights, [out] f32. */
export function outputSquares({ value, layout }: FrozenMatrix): Tensor {
  const p = value.device.primitives;
  return value.device.scope(() => p.reduce('sum', p.unary('square', p.cast(value, 'f32')), [layout === 'outIn' ? 1 : 0]));
}

function multiply(x: Tensor, { value }: FrozenMatrix, transposed: boolean): Tensor {
  const p = x.device.primitives;
  using factor = p.cast(value, x.dtype);
  return p.matMul(x, factor, false, transposed);
}
