import { invariant, TunefleetError } from '@tunefleet/foundation';
import { selectOutputs, type FrozenMatrix } from '@tunefleet/ml-tensor';
import type { BindableModel } from '../../tuner';
import type { LoraTarget } from '../match';
import { groupsOf } from '../token-tables';
import { leadingQr } from './orthogonal';
import { approximateSingular, largestSingular, type SingularPart } from './singular';
import type { WeightStart } from './weight-start';

/** A0 [R, in] and B0ᵀ [R, out] of a target, made of its frozen weights. */
export interface StartFactors {
  readonly a: Float32Array;
  readonly b: Float32Array;
}

/**
 * Start factors by module path, a function of the weights alone: s B0 A0 is the part of W that the adapter takes over.
 * @throws TunefleetError `invalid_input` when a rank is larger than a map's sides
 * @see Meng, Wang and Zhang 2024, arXiv:2404.02948 (PiSSA); Büyükakyüz 2024, arXiv:2406.01775 (OLoRA)
 */
export function startsFromWeights(init: WeightStart, targets: readonly LoraTarget[], model: BindableModel): ReadonlyMap<string, StartFactors> {
  return new Map(
    targets.map((target) => {
      const { path, rank, inSize, outSize } = target;
      if (rank > Math.min(inSize, outSize)) {
        throw new TunefleetError('invalid_input', `tuner.r: ${init} takes the rank from the weights, and "${path}" is [${outSize}, ${inSize}], so its rank is at most ${Math.min(inSize, outSize)}, not ${rank}`, { reason: 'invalid_tuner', param: 'tuner.r' });
      }
      return [path, withMatrix(model, path, (weight) => startOf(init, target, weight))];
    }),
  );
}

function startOf(init: WeightStart, { rank, scale }: LoraTarget, weight: FrozenMatrix): StartFactors {
  if (init === 'olora') {
    const { q, r } = leadingQr(rowsOf(weight), rank);
    return { a: flat(r, 1), b: flat(q, 1) };
  }
  const { values, left, right }: SingularPart = init === 'pissa' ? largestSingular(rowsOf(weight), rank) : approximateSingular(weight, rank, Number(init.slice('pissa_niter_'.length)));
  const roots = values.map((value) => Math.sqrt(value / scale));
  return { a: flat(right, roots), b: flat(left, roots) };
}

/** Lends the weights of one projection, in f32. */
function withMatrix<T>(model: BindableModel, path: string, use: (weight: FrozenMatrix) => T): T {
  const { device } = model;
  const group = groupsOf(model).find(({ members }) => members.some((member) => member.path === path));
  const member = group?.members.find((each) => each.path === path);
  const map = member && group?.maps[member.map];
  invariant(member && map, `the model has no projection ${path}`);
  const weight = device.scope(() => {
    const part = selectOutputs(map.weight, member.row, member.outSize);
    return { ...part, value: device.primitives.cast(part.value, 'f32') };
  });
  try {
    return use(weight);
  } finally {
    weight.value.dispose();
  }
}

/** Rows of W [out, in]. */
function rowsOf({ value, layout, outSize, inSize }: FrozenMatrix): Float32Array[] {
  const all = value.device.readFloats(value);
  if (layout === 'outIn') return Array.from({ length: outSize }, (_, row) => all.subarray(row * inSize, (row + 1) * inSize));
  return Array.from({ length: outSize }, (_, row) => Float32Array.from({ length: inSize }, (__, column) => all[column * outSize + row] as number));
}

function flat(rows: readonly Float64Array[], factors: ArrayLike<number> | 1): Float32Array {
  const width = rows[0]?.length ?? 0;
  const all = new Float32Array(rows.length * width);
  rows.forEach((row, index) => row.forEach((value, i) => (all[index * width + i] = value * (factors === 1 ? 1 : (factors[index] as number)))));
  return all;
}
