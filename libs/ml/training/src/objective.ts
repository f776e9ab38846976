import type { TokenisedDataset } from '@tunefleet/ml-data';
import { headCrossEntropy, type OutputHead, type Tensor } from '@tunefleet/ml-tensor';
import type { TrainingBatch } from './collate';

/** One pass through the model, up to its output head. */
export interface ObjectivePass {
  /** [rows that carry loss, C] */
  readonly hidden: Tensor;
  readonly head: OutputHead;
  /** Labels of those rows. */
  readonly labels: Int32Array;
  readonly batch: TrainingBatch;
  readonly dataset: TokenisedDataset;
  /** Factor of the loss: 1 / (units of the optimiser step). */
  readonly scale: number;
}

export interface PassLoss {
  /** Rank 0 f32, differentiable: the sum over the pass' units times `scale`. */
  readonly loss: Tensor;
  /** Rank 0 f32: loss tokens that were the likeliest; null where that says nothing. */
  readonly correct: Tensor | null;
  /** Sums over the units, by name; what is reported are their means. */
  readonly sums: Readonly<Record<string, number>>;
}

/** What a run minimises: a mean over units, which are loss tokens or pairs of examples. */
export interface Objective {
  /** Examples of a dataset that follow each other and stay together in a pass: 1, or 2 for pairs. A batch counts groups. */
  readonly groupSize: number;
  unitsOf(batch: TrainingBatch): number;
  /** Called inside the tape. */
  loss(pass: ObjectivePass): PassLoss;
}

const NO_SUMS: PassLoss['sums'] = {};

/** Cross entropy of every token that carries loss. */
export const nextToken: Objective = {
  groupSize: 1,
  unitsOf: ({ lossTokens }) => lossTokens,
  loss: ({ hidden, head, labels, scale }) => ({ ...headCrossEntropy(hidden, head, labels, { scale }), sums: NO_SUMS }),
};

/** [groups] tokens per group; the array itself where groups are single examples. */
export function groupLengths(lengths: Int32Array, groupSize: number): Int32Array {
  if (groupSize === 1) return lengths;
  return Int32Array.from({ length: lengths.length / groupSize }, (_, group) => {
    let sum = 0;
    for (let index = 0; index < groupSize; index++) sum += lengths[group * groupSize + index] as number;
    return sum;
  });
}

/** The examples of some groups, group after group. */
export function examplesOf(groups: Int32Array, groupSize: number): Int32Array {
  if (groupSize === 1) return groups;
  return Int32Array.from({ length: groups.length * groupSize }, (_, index) => (groups[Math.floor(index / groupSize)] as number) * groupSize + (index % groupSize));
}
