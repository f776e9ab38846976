import { invariant } from '@tunefleet/foundation';
import type { Device } from '../../device';
import type { FloatDType } from '../../dtype';
import type { Primitives } from '../../primitives';
import type { Tensor } from '../../tensor';
import { multiplyForward, type FrozenMatrix } from './frozen-matrix';
import { dropoutMasks, dropped, dropsInput, type Dropout } from './input-dropout';
import { shiftOf, type OutputShift } from './output-shift';
import { decompose, type Magnitude, type WeightDecomposition } from './weight-decomposition';

/**
 * A low-rank update scale * B A of some output rows of one map of a group.
 * @see Hu et al. 2021, arXiv:2106.09685, section 4.1
 */
export interface LoraUpdate {
  /** [R, in] f32, trainable. */
  readonly a: Tensor;
  /** Bᵀ, [R, rows] f32, trainable. */
  readonly b: Tensor;
  /** alpha / R, or alpha / sqrt(R) with rsLoRA. */
  readonly scale: number;
  /** Which map of the group, and the first of its output rows that it adds to. */
  readonly map: number;
  readonly row: number;
  /** Of this update's view of the input. */
  readonly dropout: Dropout | null;
  /** Tensors that get the gradients by `a` and `b` in their place: where those are made of trainable ones, as a - a0. */
  readonly gradientTo?: { readonly a?: Tensor; readonly b?: Tensor };
}

/** The updates of one group side by side, so that one narrow product serves them all. R is the sum of their ranks. */
export interface LoraBundle {
  readonly updates: readonly LoraUpdate[];
  /** [R, in] */
  readonly a: Tensor;
  /** Per map [R, out]: scale * Bᵀ where an update adds to the map, zero elsewhere, times the gain where weights are decomposed; null where none does. */
  readonly b: readonly (Tensor | null)[];
  readonly decomposition: WeightDecomposition | null;
  readonly shifts: readonly OutputShift[];
  /** Per map [out], the sum of its shifts; null where there is none. */
  readonly shift: readonly (Tensor | null)[];
}

export interface BundleOptions {
  /** Outputs whose weights are decomposed into magnitude and direction. */
  readonly magnitudes?: readonly Magnitude[];
  /** With magnitudes: what every map's outputs have, see `outputSquares`; [out] f32, borrowed. */
  readonly squares?: readonly (Tensor | null)[];
  readonly shifts?: readonly OutputShift[];
}

/**
 * The updates of a group's maps. An output is updated by one adapter only where its weights are decomposed.
 * @returns tensors in `dtype`, the caller's
 */
export function bundleLora(device: Device, updates: readonly LoraUpdate[], weights: readonly FrozenMatrix[], dtype: FloatDType, { magnitudes = [], squares = [], shifts = [] }: BundleOptions = {}): LoraBundle {
  const p = device.primitives;
  return device.scope(() => {
    const wide = stack(p, updates.map((update) => update.a), 0); // [R, in] f32
    const a = p.cast(wide, dtype);
    const factors = weights.map(({ outSize }, map) => {
      if (!updates.some((update) => update.map === map)) return null;
      const rows = updates.map((update) => (update.map === map ? spread(p, update, outSize) : p.zeros([update.a.dim(0), outSize], 'f32')));
      return stack(p, rows, 0); // [R, out] f32
    });
    const decomposition = magnitudes.length === 0 ? null : decompose({ a: wide, typedA: a, factors, weights, magnitudes, squares });
    const b = factors.map((factor, map) => {
      const gain = decomposition?.wideGains[map];
      return factor && p.cast(gain ? p.mul(factor, gain) : factor, dtype);
    });
    const shift = weights.map(({ outSize }, map) => {
      const sum = shiftOf(p, shifts, map, outSize);
      return sum && p.cast(sum, dtype);
    });
    return { updates, a, b, decomposition, shifts, shift };
  });
}

/** scale * Bᵀ among zeros, [R, out]. */
function spread(p: Primitives, { b, scale, row }: LoraUpdate, outSize: number): Tensor {
  const [rank, rows] = [b.dim(0), b.dim(1)];
  const [before, after] = [row, outSize - row - rows];
  invariant(before >= 0 && after >= 0, `rows ${row} to ${row + rows} of a map with ${outSize}`);
  const zeros = (columns: number): readonly Tensor[] => (columns > 0 ? [p.zeros([rank, columns], 'f32')] : []);
  return stack(p, [...zeros(before), scaled(p, b, scale), ...zeros(after)], 1);
}

/** drop(x) Aᵀ of every update, [N, R], and the masks of the updates that have dropout. */
export function narrowProduct(p: Primitives, x: Tensor, lora: LoraBundle): { readonly product: Tensor; readonly masks: readonly Tensor[] } {
  if (!dropsInput(lora)) return { product: multiplyForward(x, matrixOf(lora.a)), masks: [] };
  const masks = dropoutMasks(p, x, lora);
  const factors = p.split(lora.a, ranks(lora), 0);
  return { product: stack(p, factors.map((factor, index) => p.matMul(dropped(p, x, lora, masks, index), factor, false, true)), 1), masks };
}

/** Gradient by the narrow product, [N, R]; null where no gradient comes. */
export function productGradient(p: Primitives, gradients: readonly (Tensor | null)[], { b }: LoraBundle): Tensor | null {
  const parts = gradients.flatMap((g, index) => {
    const factor = b[index];
    return g && factor ? [multiplyForward(g, matrixOf(factor))] : [];
  });
  return parts.reduce<Tensor | null>((sum, part) => (sum ? p.add(sum, part) : part), null);
}

/** What the updates add to the gradient by x, [N, in]. */
export function inputBranch(p: Primitives, dProduct: Tensor, lora: LoraBundle, masks: readonly Tensor[]): Tensor {
  if (!dropsInput(lora)) return p.matMul(dProduct, lora.a);
  const [parts, factors] = [p.split(dProduct, ranks(lora), 1), p.split(lora.a, ranks(lora), 0)];
  return p.addAll(parts.map((part, index) => dropped(p, p.matMul(part, factors[index] as Tensor), lora, masks, index)));
}

/** Gradients by A and Bᵀ of every update, f32, in the order a, b, a, b; and by the factors of every map without gain, [R, out]. */
export function factorGradients(
  p: Primitives,
  parts: {
    readonly x: Tensor;
    readonly product: Tensor;
    readonly dProduct: Tensor;
    readonly masks: readonly Tensor[];
    readonly gradients: readonly (Tensor | null)[];
    readonly lora: LoraBundle;
  },
): { readonly factors: (Tensor | null)[]; readonly dFactors: readonly (Tensor | null)[] } {
  const { x, product, dProduct, masks, gradients, lora } = parts;
  const sizes = ranks(lora);
  const dA = dropsInput(lora)
    ? cut(p, dProduct, sizes, 1).map((part, index) => p.matMul(part, dropped(p, x, lora, masks, index), true, false))
    : cut(p, p.matMul(dProduct, x, true, false), sizes, 0);
  const dFactors = gradients.map((g, map) => (g && lora.b[map] ? p.matMul(product, g, true, false) : null)); // [R, out], before the gain
  const dB = dFactors.map((whole, map) => {
    const gain = lora.decomposition?.wideGains[map];
    return whole && gain ? p.mul(p.cast(whole, 'f32'), gain) : whole;
  });
  const ofOutputs = outputFactorGradients(p, dB, lora.updates);
  const factors = lora.updates.flatMap((_, index) => [p.cast(dA[index] as Tensor, 'f32'), ofOutputs[index] ?? null]);
  return { factors, dFactors };
}

/** Gradients by Bᵀ of every update, [R_i, rows] f32. @param dB per map those by the bundle's factors without gain, [R, out] */
export function outputFactorGradients(p: Primitives, dB: readonly (Tensor | null)[], updates: readonly LoraUpdate[]): (Tensor | null)[] {
  let start = 0;
  return updates.map(({ a, b, scale, map, row }) => {
    const rank = a.dim(0);
    const whole = dB[map];
    const block = whole ? block2d(p, whole, [start, row], [rank, b.dim(1)]) : null;
    start += rank;
    return block && scaled(p, p.cast(block, 'f32'), scale);
  });
}

function matrixOf(a: Tensor): FrozenMatrix {
  return { value: a, layout: 'outIn', outSize: a.dim(0), inSize: a.dim(1) };
}

function ranks({ updates }: LoraBundle): number[] {
  return updates.map(({ a }) => a.dim(0));
}

function scaled(p: Primitives, x: Tensor, scale: number): Tensor {
  return scale === 1 ? x : p.scale(x, scale);
}

function stack(p: Primitives, parts: readonly Tensor[], axis: number): Tensor {
  return parts.length === 1 && parts[0] ? parts[0] : p.concat(parts, axis);
}

function block2d(p: Primitives, x: Tensor, begin: readonly [number, number], size: readonly [number, number]): Tensor {
  return size.every((n, axis) => n === x.dim(axis)) ? x : p.slice(x, begin, size);
}

function cut(p: Primitives, x: Tensor, sizes: readonly number[], axis: number): readonly Tensor[] {
  return sizes.length === 1 ? [x] : p.split(x, sizes, axis);
}
