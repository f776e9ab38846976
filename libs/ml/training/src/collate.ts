import { invariant } from '@tunefleet/foundation';
import { IGNORED_LABEL, type TokenisedDataset, type TokenisedExample } from '@tunefleet/ml-data';
import type { TokenBatch } from '@tunefleet/ml-models';
import { layOut, type BatchLayout } from './batch-layout';

export interface TrainingBatch {
  readonly tokens: TokenBatch;
  /** [rows * columns] label of each position: the token after it, or -100 where that carries no loss. */
  readonly labels: Int32Array;
  /** [rows * columns] tokens of the example that each position belongs to, in a shared prefix of the row's first; 0 for padding. */
  readonly lengths: Int32Array;
  /** Places in the dataset, in the order in which the examples stand in the rows. */
  readonly examples: readonly number[];
  /** The same as they were given. */
  readonly given: Int32Array;
  /** [its tokens] per example, in the order of `examples`: the positions where its tokens stand, those of a shared prefix among them. */
  readonly places: readonly Int32Array[];
  /** Tokens of the examples: without padding, and a shared prefix as often as it occurs. */
  readonly tokenCount: number;
  /** Labels that carry loss. */
  readonly lossTokens: number;
  /** The same by example, in the order of `examples`; so stand the labels that carry loss. */
  readonly lossTokensOf: readonly number[];
}

/**
 * The examples as one pass through a model. Where it is cheaper, examples stand one after the other in a row, behind the prefix they share: each sees the prefix
 * and itself, at the positions it would have alone. Dropout then falls on the prefix once for all of them. Padding is on the right, where no real token sees it.
 * @param indices longest example first; with a group size above 1, group after group
 * @param groupSize examples that follow each other and may begin alike
 */
export function collate(dataset: TokenisedDataset, indices: Int32Array, pairsPerToken: number, groupSize = 1): TrainingBatch {
  const examples = Array.from(indices, (index) => dataset.example(index));
  invariant(examples.some(({ inputIds }) => inputIds.length > 0), 'a batch without tokens');
  const lengths = examples.map(({ inputIds }) => inputIds.length);
  const layout = layOut({ lengths, sharedPrefix: sharedPrefix(examples), pairsPerToken, ...(groupSize === 1 ? {} : { groups: groupsOf(examples, groupSize) }) });
  const tokenCount = examples.reduce((sum, { inputIds }) => sum + inputIds.length, 0);
  const order = layout.rows.flat();
  const lossTokensOf = order.map((member) => countLossTokens(examples[member] as TokenisedExample));
  const lossTokens = lossTokensOf.reduce((sum, count) => sum + count, 0);
  return { ...place(examples, layout), examples: order.map((member) => indices[member] as number), given: indices, tokenCount, lossTokens, lossTokensOf };
}

function groupsOf(examples: readonly TokenisedExample[], size: number): { members: number[]; sharedPrefix: number }[] {
  return Array.from({ length: examples.length / size }, (_, group) => {
    const members = Array.from({ length: size }, (_each, index) => group * size + index);
    return { members, sharedPrefix: sharedPrefix(members.map((member) => examples[member] as TokenisedExample)) };
  });
}

/** Labels that will carry loss: the first token is never predicted. */
export function countLossTokens({ labels }: TokenisedExample): number {
  let count = 0;
  for (let position = 1; position < labels.length; position++) if (labels[position] !== IGNORED_LABEL) count++;
  return count;
}

/** The positions that carry loss, and their labels; all positions where none does, so that there is something to compute. */
export function labelled(labels: Int32Array): { readonly rows: Int32Array | null; readonly labels: Int32Array } {
  const rows = Int32Array.from([...labels.keys()].filter((row) => labels[row] !== IGNORED_LABEL));
  if (rows.length === 0 || rows.length === labels.length) return { rows: null, labels };
  return { rows, labels: Int32Array.from(rows, (row) => labels[row] as number) };
}

/** Leading tokens common to all, up to the first that any of them learns: what predicts a learned token belongs to one example. */
function sharedPrefix(examples: readonly TokenisedExample[]): number {
  const [first, ...others] = examples;
  if (!first || others.length === 0) return 0;
  const shortest = Math.min(...examples.map(({ inputIds }) => inputIds.length));
  let length = 0;
  while (
    // The token after the prefix must not be learned either, and every example keeps one of its own.
    length + 1 < shortest &&
    others.every(({ inputIds }) => inputIds[length] === first.inputIds[length]) &&
    examples.every(({ labels }) => labels[length + 1] === IGNORED_LABEL)
  ) {
    length++;
  }
  return length;
}

function place(examples: readonly TokenisedExample[], { rows, columns, trunks }: BatchLayout): Pick<TrainingBatch, 'tokens' | 'labels' | 'lengths' | 'places'> {
  const size = rows.length * columns;
  const ids = new Int32Array(size);
  const labels = new Int32Array(size).fill(IGNORED_LABEL);
  const lengths = new Int32Array(size);
  const positions = new Int32Array(size);
  const branches = new Int32Array(size);
  const places: Int32Array[] = [];
  rows.forEach((members, row) => {
    const trunk = trunks[row] as number;
    let at = row * columns;
    let last = 0;
    members.forEach((member, index) => {
      const { inputIds, labels: given } = examples[member] as TokenisedExample;
      const from = index === 0 ? 0 : trunk;
      const [begin, own] = [row * columns, at - from];
      places.push(Int32Array.from(inputIds, (_, position) => (position < from ? begin : own) + position));
      for (let position = from; position < inputIds.length; position++, at++) {
        ids[at] = last = inputIds[position] as number;
        labels[at] = given[position + 1] ?? IGNORED_LABEL;
        lengths[at] = inputIds.length;
        positions[at] = position;
        branches[at] = position < trunk ? 0 : index + 1;
      }
    });
    // Any valid token will do as padding.
    const end = (row + 1) * columns;
    ids.fill(last, at, end);
    branches.fill(members.length + 1, at, end);
  });
  const shared = rows.some((members) => members.length > 1);
  return { tokens: shared ? { ids, rows: rows.length, columns, positions, branches } : { ids, rows: rows.length, columns }, labels, lengths, places };
}
