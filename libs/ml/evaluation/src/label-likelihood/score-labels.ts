import { TunefleetError } from '@tunefleet/foundation';
import { commonLength, type PrefixCache } from '@tunefleet/ml-generation';
import type { LabelSequence } from './label-sequences';

/** What a model expects at one position. */
interface Expectation {
  readonly logits: Float32Array;
  /** log of the sum of exp(logits). */
  readonly normaliser: number;
}

/**
 * Log-likelihood of each label, summed over its tokens. The labels share the prompt's forward pass: they are visited in the order of their tokens, so that
 * neighbours share most, and each adds only the tokens in which it differs.
 * @returns [labels] nats, in the order given
 * @throws TunefleetError `numerical` when a score is not finite
 */
export function scoreLabels(cache: PrefixCache, sequences: readonly LabelSequence[]): number[] {
  const scores = new Array<number>(sequences.length).fill(0);
  let expectations = new Map<number, Expectation>();
  let last = new Int32Array(0);
  const order = [...sequences.entries()].sort(([, a], [, b]) => compareTokens(a.ids, b.ids));
  for (const [index, { ids, answerStart }] of order) {
    const shared = commonLength(last, ids);
    // What is expected after position p depends on the tokens up to p alone.
    expectations = new Map([...expectations].filter(([position]) => position < shared));
    last = ids as Int32Array<ArrayBuffer>;
    const missing = firstMissing(expectations, answerStart - 1, ids.length - 1);
    if (missing < ids.length - 1) {
      const rows = cache.read(ids.subarray(0, ids.length - 1), missing);
      rows.forEach((logits, offset) => expectations.set(missing + offset, { logits, normaliser: logSumExp(logits) }));
    }
    scores[index] = sumOver(ids, answerStart, expectations);
  }
  return scores;
}

function firstMissing(expectations: ReadonlyMap<number, Expectation>, begin: number, end: number): number {
  let position = begin;
  while (position < end && expectations.has(position)) position++;
  return position;
}

function sumOver(ids: Int32Array, answerStart: number, expectations: ReadonlyMap<number, Expectation>): number {
  let score = 0;
  for (let position = answerStart; position < ids.length; position++) {
    const { logits, normaliser } = expectations.get(position - 1) as Expectation;
    score += (logits[ids[position] as number] as number) - normaliser;
  }
  if (!Number.isFinite(score)) throw new TunefleetError('numerical', 'a label has no finite score; the weights or the adapter hold non-finite numbers');
  return score;
}

function logSumExp(logits: Float32Array): number {
  let largest = -Infinity;
  for (const value of logits) if (value > largest) largest = value;
  let sum = 0;
  for (const value of logits) sum += Math.exp(value - largest);
  return largest + Math.log(sum);
}

/** Lexicographic. */
function compareTokens(a: Int32Array, b: Int32Array): number {
  const shared = commonLength(a, b);
  return (a[shared] ?? -1) - (b[shared] ?? -1);
}
