import type { Candidate } from './candidates';
import type { JudgeOptions, PreparedRow } from './judge';

/** Texts written at once: each costs a step little more, until the device is busy. */
const ROWS_MAX = 16;

/** A prompt, and how many tokens its answer may have. */
export interface Question {
  readonly prompt: Int32Array;
  readonly maxTokens: number;
}

export function questionOf({ prompt }: PreparedRow, maxTokens: number, { maxLength }: JudgeOptions): Question {
  return { prompt, maxTokens: Math.min(maxTokens, maxLength - prompt.length) };
}

/**
 * Which questions to put together: of similar length, and no more than there is memory for unless one alone takes more.
 * @returns groups of indices
 */
export function planAnswers(questions: readonly Question[], candidates: readonly Candidate[], { availableBytes }: JudgeOptions): number[][] {
  const length = (index: number): number => questions[index]?.prompt.length ?? 0;
  const tokens = (index: number): number => length(index) + (questions[index]?.maxTokens ?? 0);
  const order = [...questions.keys()].sort((a, b) => length(a) - length(b) || a - b);
  const fits = (group: readonly number[]): boolean => {
    const longest = Math.max(...group.map(tokens));
    return candidates.every(({ generator }) => group.length * generator.bytesPerRow(longest) <= availableBytes);
  };
  const groups: number[][] = [];
  for (const index of order) {
    const last = groups.at(-1);
    if (last && last.length < ROWS_MAX && fits([...last, index])) last.push(index);
    else groups.push([index]);
  }
  return groups;
}

/** Greedy texts, in the order of the questions. */
export async function answersInWords({ generator }: Candidate, questions: readonly Question[], { tokenizer, stopIds, signal }: JudgeOptions): Promise<string[]> {
  const texts = await generator.generate(questions.map(({ prompt }) => prompt), { maxTokens: questions.map(({ maxTokens }) => maxTokens), stopIds, signal });
  return texts.map(({ ids }) => tokenizer.decode(ids, { skipSpecialTokens: true }));
}
