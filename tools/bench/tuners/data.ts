import { PackedDataset, type TokenisedDataset } from '@tunefleet/ml-data';

export interface DataShape {
  /** Tokens of a row. */
  readonly length: number;
  /** Of these, the learned ones at its end. */
  readonly answer: number;
}

/** Answers that there are. */
const ANSWERS = 4;

/** Rows of random tokens that end in one of a few answers, so that there is something to learn. */
export function answersToQuestions(count: number, { length, answer }: DataShape, vocabSize: number): TokenisedDataset {
  if (answer >= length) throw new Error(`an answer of ${answer} tokens leaves no question in rows of ${length}`);
  let state = 2;
  const token = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * vocabSize);
  };
  const answers = Array.from({ length: ANSWERS }, () => Array.from({ length: answer }, token));
  const ids = new Int32Array(count * length);
  const learned = new Uint8Array(count * length);
  for (let row = 0; row < count; row++) {
    const question = length - answer;
    for (let at = 0; at < length; at++) ids[row * length + at] = at < question ? token() : (answers[row % ANSWERS]?.[at - question] ?? 0);
    learned.fill(1, row * length + question, (row + 1) * length);
  }
  return new PackedDataset('answers', { lengths: new Int32Array(count).fill(length), ids, learned });
}
