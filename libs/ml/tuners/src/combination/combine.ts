/**
 * One LoRA from several, weighted: for every map a change that stands for the sum of w_i s_i B_i A_i.
 * @see huggingface/peft `src/peft/tuners/lora/model.py`, `add_weighted_adapter`; `src/peft/utils/merge_utils.py`
 */
import { TunefleetError, assertNever } from '@tunefleet/foundation';
import type { LoraFactorsOnDisk } from '../lora/factors';
import { truncatedProduct, type LowRankFactorPair } from './low-rank-svd';
import { dropAndRescale, meanOfMajority, pruneSmallest, weightedSum } from './sparsify';

export const COMBINATIONS = ['cat', 'linear', 'svd', 'ties', 'dare_linear', 'dare_ties', 'magnitude_prune'] as const;
export type Combination = (typeof COMBINATIONS)[number];

export interface WeightedLora {
  readonly name: string;
  readonly weight: number;
  readonly targets: readonly LoraFactorsOnDisk[];
}

export interface CombineOptions {
  readonly combination: Combination;
  /** Share of the values that stay, for all but `cat`, `linear` and `svd`. */
  readonly density: number | null;
  /** Of the result, for `svd`; null: the largest of the given ones. */
  readonly rank: number | null;
  /** Chooses what DARE drops. */
  readonly seed: number;
}

/** Scale 1 everywhere. */
export interface CombinedLora {
  readonly rank: number;
  readonly targets: readonly (LowRankFactorPair & { readonly path: string; readonly inSize: number; readonly outSize: number; readonly fanInFanOut: boolean })[];
}

/** @throws TunefleetError `invalid_input` naming the option, or the adapters whose ranks differ */
export function combineLoras(loras: readonly WeightedLora[], options: CombineOptions): CombinedLora {
  checkOptions(loras, options);
  const paths = [...new Set(loras.flatMap(({ targets }) => targets.map(({ path }) => path)))];
  const ranks = loras.map(({ targets }) => targets.reduce((most, target) => Math.max(most, target.rank), 0));
  const rank = rankOf(ranks, options);
  const targets = paths.map((path, index) => {
    const parts = loras.flatMap(({ targets: own, weight }) => own.flatMap((target) => (target.path === path ? [{ target, weight: weight * target.scale }] : [])));
    const { inSize, outSize, fanInFanOut = false } = (parts[0] as WeightedTarget).target;
    return { path, inSize, outSize, fanInFanOut, ...padded(combined(parts, options, rank, index), rank, inSize, outSize) };
  });
  return { rank, targets };
}

interface WeightedTarget {
  readonly target: LoraFactorsOnDisk;
  /** Of the adapter, times its scale. */
  readonly weight: number;
}

function combined(parts: readonly WeightedTarget[], { combination, density, seed }: CombineOptions, rank: number, index: number): LowRankFactorPair {
  const share = density ?? 1;
  switch (combination) {
    case 'cat':
      return sideBySide(parts);
    case 'svd': {
      const all = sideBySide(parts);
      return truncatedProduct(all, parts.reduce((sum, { target }) => sum + target.rank, 0), rank);
    }
    case 'linear':
      return byFactor(parts, weightedSum);
    case 'magnitude_prune':
      return byFactor(parts, (values, weights) => weightedSum(values.map((each) => pruneSmallest(each, share)), weights));
    case 'ties':
      return byFactor(parts, (values, weights) => meanOfMajority(values.map((each) => pruneSmallest(each, share)), weights));
    case 'dare_linear':
    case 'dare_ties': {
      const mix = combination === 'dare_ties' ? meanOfMajority : weightedSum;
      return byFactor(parts, (values, weights, factor) => mix(values.map((each, i) => dropAndRescale(each, share, [seed, (index * 2 + factor) * parts.length + i])), weights));
    }
    default:
      return assertNever(combination);
  }
}

/** Both factors by themselves, with the root of each weight; its sign goes to A. */
function byFactor(parts: readonly WeightedTarget[], mix: (values: readonly Float32Array[], weights: readonly number[], factor: 0 | 1) => Float32Array): LowRankFactorPair {
  const roots = parts.map(({ weight }) => Math.sqrt(Math.abs(weight)));
  const signed = roots.map((root, i) => ((parts[i] as WeightedTarget).weight < 0 ? -root : root));
  return { a: mix(parts.map(({ target }) => target.a), signed, 0), b: mix(parts.map(({ target }) => target.b), roots, 1) };
}

/** Ranks add: A below A, each with its weight, B beside B. */
function sideBySide(parts: readonly WeightedTarget[]): LowRankFactorPair {
  const rank = parts.reduce((sum, { target }) => sum + target.rank, 0);
  const { inSize, outSize } = (parts[0] as WeightedTarget).target;
  const a = new Float32Array(rank * inSize);
  const b = new Float32Array(outSize * rank);
  let row = 0;
  for (const { target, weight } of parts) {
    a.set(target.a.map((value) => value * weight), row * inSize);
    for (let o = 0; o < outSize; o++) b.set(target.b.subarray(o * target.rank, (o + 1) * target.rank), o * rank + row);
    row += target.rank;
  }
  return { a, b };
}

/** With zeros up to a common rank, as PEFT has them. */
function padded({ a, b }: LowRankFactorPair, rank: number, inSize: number, outSize: number): LowRankFactorPair {
  const given = a.length / inSize;
  if (given === rank) return { a, b };
  const wide = { a: new Float32Array(rank * inSize), b: new Float32Array(outSize * rank) };
  wide.a.set(a);
  for (let o = 0; o < outSize; o++) wide.b.set(b.subarray(o * given, (o + 1) * given), o * rank);
  return wide;
}

function rankOf(ranks: readonly number[], { combination, rank }: CombineOptions): number {
  if (combination === 'cat') return ranks.reduce((sum, each) => sum + each, 0);
  return combination === 'svd' ? (rank ?? Math.max(...ranks)) : Math.max(...ranks);
}

function checkOptions(loras: readonly WeightedLora[], { combination, density, rank }: CombineOptions): void {
  const refuse = (message: string) => new TunefleetError('invalid_input', message, { reason: 'bad_combination' });
  if (loras.length < 2) throw refuse(`${loras.length} adapters were given; combining takes two or more`);
  const unweighted = loras.find(({ weight }) => !Number.isFinite(weight));
  if (unweighted) throw refuse(`the weight of ${unweighted.name} is ${unweighted.weight}; it must be a number`);
  const sparse = !['cat', 'linear', 'svd'].includes(combination);
  if (sparse && (density === null || !(density > 0 && density <= 1))) throw refuse(`${combination} needs a density above 0 and up to 1, got ${density ?? 'none'}`);
  if (!sparse && density !== null) throw refuse(`${combination} takes no density`);
  if (rank !== null && combination !== 'svd') throw refuse(`${combination} takes no rank; only svd does`);
  if (rank !== null && !(Number.isInteger(rank) && rank >= 1)) throw refuse(`the rank is ${rank}; it must be a whole number from 1`);
  if (combination === 'cat' || combination === 'svd') return;
  const byPath = new Map<string, { readonly name: string; readonly rank: number }>();
  for (const { name, targets } of loras) {
    for (const target of targets) {
      const other = byPath.get(target.path) ?? { name, rank: target.rank };
      byPath.set(target.path, other);
      if (other.rank !== target.rank) throw refuse(`${combination} adds factors of one rank, but "${target.path}" has rank ${other.rank} in ${other.name} and ${target.rank} in ${name}; use cat or svd`);
    }
  }
}
