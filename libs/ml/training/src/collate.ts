import { invariant } from '@tunefleet/foundation';
import { IGNORED_LABEL, type TokenisedDataset, type TokenisedExample } from '@tunefleet/ml-data';
import type { TokenBatch } from '@tunefleet/ml-models';

/** Row widths are rounded up to this: fewer distinct shapes, and kernels like whole vectors. */
const WIDTH_MULTIPLE = 8;

export interface TrainingBatch {
  readonly tokens: TokenBatch;
  /** [rows * columns] label of each position: the token after it, or -100 where that carries no loss. */
  readonly labels: Int32Array;
  /** Tokens without padding. */
  readonly tokenCount: number;
  /** Labels that carry loss. */
  readonly lossTokens: number;
}

/** Examples as rows padded on the right. Padding needs no mask: no real token sees what comes after it. */
export function collate(dataset: TokenisedDataset, indices: Int32Array): TrainingBatch {
  const examples = Array.from(indices, (index) => dataset.example(index));
  const longest = Math.max(0, ...examples.map(({ inputIds }) => inputIds.length));
  invariant(longest > 0, 'a batch without tokens');
  const columns = paddedWidth(longest);
  const ids = new Int32Array(examples.length * columns);
  const labels = new Int32Array(examples.length * columns).fill(IGNORED_LABEL);
  let tokenCount = 0;
  let lossTokens = 0;
  examples.forEach((example, row) => {
    const { inputIds } = example;
    const start = row * columns;
    ids.set(inputIds, start);
    // Any valid token will do; the example's own last one cannot be out of the vocabulary.
    ids.fill(inputIds.at(-1) ?? 0, start + inputIds.length, start + columns);
    labels.set(example.labels.subarray(1), start);
    tokenCount += inputIds.length;
    lossTokens += countLossTokens(example);
  });
  return { tokens: { ids, rows: examples.length, columns }, labels, tokenCount, lossTokens };
}

/** Labels that will carry loss: the first token is never predicted. */
export function countLossTokens({ labels }: TokenisedExample): number {
  let count = 0;
  for (let position = 1; position < labels.length; position++) if (labels[position] !== IGNORED_LABEL) count++;
  return count;
}

export function paddedWidth(tokens: number): number {
  return Math.ceil(tokens / WIDTH_MULTIPLE) * WIDTH_MULTIPLE;
}
