import { invariant } from '@tunefleet/foundation';
import type { Primitives } from '../../primitives';
import type { Tensor } from '../../tensor';
import { multiplyBack, multiplyForward, selectOutputs, type FrozenMap, type FrozenMatrix } from './frozen-matrix';
import { dropped, dropsInput } from './input-dropout';
import type { LoraBundle } from './lora-bundle';

/**
 * Length of the weights of some outputs of a map, learned apart from their direction: W' = m / |W + s B A| * (W + s B A), row by row.
 * @see Liu et al. 2024, arXiv:2402.09353, section 4.1; the norm counts as a constant (section 4.3)
 */
export interface Magnitude {
  /** m, [rows] f32, trainable. */
  readonly magnitude: Tensor;
  readonly map: number;
  readonly row: number;
  /** Index of the update of these outputs whose dropout the frozen product shares. */
  readonly update: number;
}

/** Per map of a group; null where none of its outputs is decomposed. Tensors of the bundle. */
export interface WeightDecomposition {
  readonly magnitudes: readonly Magnitude[];
  /** m / norm, [out] f32; 1 for outputs that are not decomposed. */
  readonly wideGains: readonly (Tensor | null)[];
  /** The same in the compute dtype. */
  readonly gains: readonly (Tensor | null)[];
  /** |W + s B A| by row, [out] f32. */
  readonly norms: readonly (Tensor | null)[];
  /** scale * Bᵀ, [R, out] f32. */
  readonly factors: readonly (Tensor | null)[];
}

interface Parts {
  /** [R, in] f32, and in the compute dtype. */
  readonly a: Tensor;
  readonly typedA: Tensor;
  readonly factors: readonly (Tensor | null)[];
  readonly weights: readonly FrozenMatrix[];
  readonly magnitudes: readonly Magnitude[];
  readonly squares: readonly (Tensor | null)[];
}

/**
 * Gains by |W + F A|² = |W|² + F · (2 W Aᵀ + F A Aᵀ) per output, F = s B, without ever forming F A.
 * All updates of an output must belong together: their cross terms count.
 */
export function decompose({ a, typedA, factors, weights, magnitudes, squares }: Parts): WeightDecomposition {
  const p = a.device.primitives;
  const gram = p.matMul(a, a, false, true); // [R, R]
  const maps = weights.map((weight, map) => {
    const [own, factor, square] = [magnitudes.filter((each) => each.map === map), factors[map], squares[map]];
    if (own.length === 0 || !factor) return null;
    invariant(square, `map ${map} has magnitudes but no squares of its weights`);
    const cross = p.scale(p.cast(multiplyForward(typedA, weight), 'f32'), 2); // [R, out]
    const change = p.reduce('sum', p.mul(factor, p.add(cross, p.matMul(gram, factor))), [0]);
    const norm = p.unary('sqrt', p.add(square, change)); // [out]
    const pieces = own.map(({ magnitude, row }) => ({ row, rows: magnitude.dim(0), value: magnitude }));
    const gain = p.div(lined(pieces, weight.outSize, ({ row, rows }) => p.slice(norm, [row], [rows]), 0), norm);
    return { gain, norm, typed: p.cast(gain, typedA.dtype) };
  });
  return {
    magnitudes,
    factors,
    wideGains: maps.map((each) => each?.gain ?? null),
    gains: maps.map((each) => each?.typed ?? null),
    norms: maps.map((each) => each?.norm ?? null),
  };
}

/** What the gain multiplies beyond the frozen product itself: drop(x) Wᵀ of the decomposed outputs of a map, zero elsewhere; [N, out]. */
export function droppedProduct(p: Primitives, x: Tensor, { map, index }: { readonly map: FrozenMap; readonly index: number }, lora: LoraBundle, masks: readonly Tensor[]): Tensor {
  const pieces = magnitudesOf(lora, index).map(({ magnitude, row, update }) => {
    const rows = magnitude.dim(0);
    return { row, rows, value: multiplyForward(dropped(p, x, lora, masks, update), selectOutputs(map.weight, row, rows)) };
  });
  return lined(pieces, map.weight.outSize, ({ rows }) => p.zeros([x.dim(0), rows], x.dtype === 'bf16' ? 'bf16' : 'f32'), 1);
}

/** The frozen product with its gain: gain * base, or base + (gain - 1) * drop(x) Wᵀ with dropout. @param known drop(x) Wᵀ, or base without dropout */
export function withGain(p: Primitives, base: Tensor, known: Tensor, gain: Tensor, lora: LoraBundle): Tensor {
  return dropsInput(lora) ? p.add(base, p.mul(known, lessOne(p, gain))) : p.mul(base, gain);
}

/** Gradients by x of a map's frozen product with gain, to be added up. @param g [N, out] */
export function gainedInputGradients(p: Primitives, g: Tensor, { map, index }: { readonly map: FrozenMap; readonly index: number }, lora: LoraBundle, masks: readonly Tensor[]): Tensor[] {
  const gain = lora.decomposition?.gains[index];
  if (!gain) return [multiplyBack(g, map.weight)];
  if (!dropsInput(lora)) return [multiplyBack(p.mul(g, gain), map.weight)];
  const inner = p.mul(g, lessOne(p, gain));
  const extra = magnitudesOf(lora, index).map(({ magnitude, row, update }) => {
    const rows = magnitude.dim(0);
    return dropped(p, multiplyBack(p.slice(inner, [0, row], [g.dim(0), rows]), selectOutputs(map.weight, row, rows)), lora, masks, update);
  });
  return [multiplyBack(g, map.weight), ...extra];
}

/**
 * Gradients by the magnitudes, [rows] f32 each.
 * @param known per map what `withGain` was given   @param dFactors per map, from `factorGradients`
 */
export function magnitudeGradients(p: Primitives, gradients: readonly (Tensor | null)[], known: readonly (Tensor | null)[], dFactors: readonly (Tensor | null)[], { decomposition }: LoraBundle): (Tensor | null)[] {
  if (!decomposition) return [];
  const byMap = gradients.map((g, map) => {
    const [base, norm, factor, dFactor] = [known[map], decomposition.norms[map], decomposition.factors[map], dFactors[map]];
    if (!g || !base || !norm || !factor || !dFactor) return null;
    const dGain = p.add(p.reduce('sum', p.cast(p.mul(g, base), 'f32'), [0]), p.reduce('sum', p.mul(p.cast(dFactor, 'f32'), factor), [0]));
    return p.div(dGain, norm); // [out]
  });
  return decomposition.magnitudes.map(({ magnitude, map, row }) => {
    const whole = byMap[map];
    return whole ? p.slice(whole, [row], [magnitude.dim(0)]) : null;
  });
}

function magnitudesOf({ decomposition }: LoraBundle, map: number): Magnitude[] {
  return (decomposition?.magnitudes ?? []).filter((each) => each.map === map);
}

function lessOne(p: Primitives, gain: Tensor): Tensor {
  return p.sub(gain, gain.device.scalar(1, gain.dtype === 'bf16' ? 'bf16' : 'f32'));
}

interface Piece {
  readonly row: number;
  readonly rows: number;
  readonly value: Tensor;
}

/** Pieces in a line along an axis of `size` outputs, with `filler` where there is none. */
function lined(pieces: readonly Piece[], size: number, filler: (gap: { readonly row: number; readonly rows: number }) => Tensor, axis: number): Tensor {
  const parts: Tensor[] = [];
  let at = 0;
  for (const { row, rows, value } of [...pieces].sort((a, b) => a.row - b.row)) {
    invariant(row >= at && row + rows <= size, `rows ${row} to ${row + rows} of a map with ${size}, of which ${at} are taken`);
    if (row > at) parts.push(filler({ row: at, rows: row - at }));
    parts.push(value);
    at = row + rows;
  }
  if (at < size) parts.push(filler({ row: at, rows: size - at }));
  const [first] = parts as [Tensor];
  return parts.length === 1 ? first : first.device.primitives.concat(parts, axis);
}
