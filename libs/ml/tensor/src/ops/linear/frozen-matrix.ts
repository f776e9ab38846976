import type { Device } from '../../device';
import type { DType } from '../../dtype';
import type { Tensor } from '../../tensor';
import { isFused, type FusedPrimitives } from '../../fused-primitives';
import type { Additions, RowNorm } from '../../fused-ops';
import { dequantise, fitsFused, type QuantisedWeights } from './quantised-weights';

/** A frozen weight matrix, in a dtype of its own and kept the way round that this device multiplies fastest, or quantised. */
export interface FrozenMatrix {
  /** The weights; of a quantised matrix the bytes of its first part. */
  readonly value: Tensor;
  /** `outIn`: [out, in], as on disk and always when quantised; `inOut`: transposed. */
  readonly layout: 'outIn' | 'inOut';
  readonly outSize: number;
  readonly inSize: number;
  /** Matrices one below the other. They are dequantised for every product and freed after it. */
  readonly quantised?: readonly QuantisedWeights[];
}

/** A frozen linear map x Wᵀ + bias. */
export interface FrozenMap {
  readonly weight: FrozenMatrix;
  /** [out] or null. */
  readonly bias: Tensor | null;
}

/**
 * Takes over `weight` [out, in] (disposed by the holder of the result).
 * @param use an output head is met by so many rows in training that the way round which suits one row does not pay
 */
export function frozenMatrix(device: Device, weight: Tensor, use: 'map' | 'head' = 'map'): FrozenMatrix {
  const [outSize, inSize] = [weight.dim(0), weight.dim(1)];
  const { untransposedWeights: turned } = device.backend;
  if (turned !== 'all' && (turned === 'none' || use === 'head' || outSize <= inSize)) return { value: weight, layout: 'outIn', outSize, inSize };
  const value = device.primitives.transpose(weight, [1, 0]);
  weight.dispose();
  return { value, layout: 'inOut', outSize, inSize };
}

/** Matrices of one input, one below the other. Their tensors stay their holder's. */
export function quantisedMatrix(parts: readonly [QuantisedWeights, ...QuantisedWeights[]]): FrozenMatrix {
  const [{ packed, inSize }] = parts;
  return { value: packed, layout: 'outIn', outSize: parts.reduce((sum, { outSize }) => sum + outSize, 0), inSize, quantised: parts };
}

/** x Wᵀ: [N, in] -> [N, out] in the dtype of `x`. No gradient recorded. */
export function multiplyForward(x: Tensor, weight: FrozenMatrix): Tensor {
  return fusedForward(x, weight) ?? multiply(x, weight, weight.layout === 'outIn');
}

/** g W: [N, out] -> [N, in] in the dtype of `g`. No gradient recorded. */
export function multiplyBack(g: Tensor, weight: FrozenMatrix): Tensor {
  return fusedBack(g, weight) ?? multiply(g, weight, weight.layout === 'inOut');
}

/** x Wᵀ and what is added, in one op; null where this device has none for it. */
export function fusedForward(x: Tensor, weight: FrozenMatrix, additions: Additions<Tensor> = {}): Tensor | null {
  if (!isFused(x) || weight.layout !== 'outIn') return null;
  return x.dim(0) > FEW && weight.outSize > FEW ? manyRows(x, weight, false, additions) : byDotProducts(x, weight, additions);
}

/** g W and what is added, in one op; null where this device has none for it. */
export function fusedBack(g: Tensor, weight: FrozenMatrix, additions: Additions<Tensor> = {}): Tensor | null {
  return isFused(g) && weight.layout === 'outIn' ? manyRows(g, weight, true, additions) : null;
}

/** norm(x) Wᵀ + bias in one op, of a few rows whose gradient nobody wants; null where this device has none for it. */
export function fusedNormed(x: Tensor, norm: RowNorm<Tensor>, { weight, bias }: FrozenMap): Tensor | null {
  return isFew(x) && isFused(norm.weight) && weight.layout === 'outIn' ? byDotProducts(x, weight, { bias }, norm) : null;
}

/** silu(norm(x) Gᵀ) * (norm(x) Uᵀ), as `fusedNormed`. */
export function fusedGated(x: Tensor, norm: RowNorm<Tensor>, gate: FrozenMap, up: FrozenMap): Tensor | null {
  if (!isFew(x) || !isFused(norm.weight) || gate.bias || up.bias) return null;
  const { fused } = x.device;
  const [a, b] = [gate.weight, up.weight];
  if (a.quantised && b.quantised) {
    const [[first, ...restOfGate], [second, ...restOfUp]] = [a.quantised, b.quantised];
    const fits = first && second && restOfGate.length + restOfUp.length === 0 && areAlike(first, second) && fitsFused(first);
    return fits ? fused.gatedLinearFourBit(x, first, second, norm) : null;
  }
  const fits = !a.quantised && !b.quantised && a.value.dtype === b.value.dtype && a.layout === 'outIn' && b.layout === 'outIn';
  return fits ? fused.gatedLinear(x, a.value, b.value, norm) : null;
}

function isFew(x: Tensor): x is FusedTensor {
  return isFused(x) && !x.device.tape && x.dim(0) <= FEW;
}

/** Of one size, with scales of one kind. */
function areAlike(a: QuantisedWeights, b: QuantisedWeights): boolean {
  const kind = ({ scales }: QuantisedWeights): number => ('values' in scales ? 0 : scales.blockSize);
  return a.outSize === b.outSize && a.inSize === b.inSize && a.blockSize === b.blockSize && kind(a) === kind(b);
}

type FusedTensor = Tensor & { readonly device: { readonly fused: FusedPrimitives } };

function manyRows(x: FusedTensor, weight: FrozenMatrix, turned: boolean, additions: Additions<Tensor>): Tensor | null {
  using factor = weightsIn(weight, weight.quantised ? 'f32' : weight.value.dtype);
  return x.device.fused.product(x, factor, turned, additions);
}

/** For a few rows or outputs: weights are read once, and what is done with them is next to nothing. */
function byDotProducts(x: FusedTensor, { value, quantised }: FrozenMatrix, additions: Additions<Tensor>, norm: RowNorm<Tensor> | null = null): Tensor {
  const { fused, primitives } = x.device;
  if (!quantised) return fused.linear(x, value, additions, norm);
  const fits = quantised.every(fitsFused);
  const [only] = quantised as readonly [QuantisedWeights];
  if (fits && quantised.length === 1) return fused.linearFourBit(x, only, additions, norm);
  if (fits && !Object.values(additions).some(Boolean)) return x.device.scope(() => primitives.concat(quantised.map((part) => fused.linearFourBit(x, part, {}, norm)), 1));
  using dense = dequantise(quantised);
  return fused.linear(x, dense, additions, norm);
}

/** Rows or outputs; measured: with more of both the products of whole matrices are faster. */
const FEW = 32;

/** Some outputs of a map as a map of their own, not quantised. @returns its `value` is the caller's */
export function selectOutputs(weight: FrozenMatrix, row: number, rows: number): FrozenMatrix {
  const { layout, outSize, inSize, quantised } = weight;
  const { device } = weight.value;
  const part = quantised && partAt(quantised, row, rows);
  if (part) return { value: dequantise([part]), layout, outSize: rows, inSize };
  using whole = weightsIn(weight, quantised ? 'f32' : weight.value.dtype);
  if (rows === outSize) return { value: device.alias(whole), layout, outSize, inSize };
  const [begin, size] = layout === 'outIn' ? [[row, 0], [rows, inSize]] : [[0, row], [inSize, rows]];
  return { value: device.primitives.slice(whole, begin as number[], size as number[]), layout, outSize: rows, inSize };
}

/** Square of the Euclidean norm of every output's weights, [out] f32. */
export function outputSquares(weight: FrozenMatrix): Tensor {
  const { device } = weight.value;
  const p = device.primitives;
  return device.scope(() => p.reduce('sum', p.unary('square', weightsIn(weight, 'f32')), [weight.layout === 'outIn' ? 1 : 0]));
}

function multiply(x: Tensor, weight: FrozenMatrix, transposed: boolean): Tensor {
  using factor = weightsIn(weight, x.dtype);
  return x.device.primitives.matMul(x, factor, false, transposed);
}

/** The weights in `dtype`, the caller's. Of a quantised matrix they are codes times scales in f32, rounded once. */
function weightsIn({ value, quantised }: FrozenMatrix, dtype: DType): Tensor {
  const p = value.device.primitives;
  if (!quantised) return p.cast(value, dtype);
  using wide = dequantise(quantised);
  return p.cast(wide, dtype);
}

function partAt(parts: readonly QuantisedWeights[], row: number, rows: number): QuantisedWeights | null {
  let at = 0;
  for (const part of parts) {
    if (at === row && part.outSize === rows) return part;
    at += part.outSize;
  }
  return null;
}
