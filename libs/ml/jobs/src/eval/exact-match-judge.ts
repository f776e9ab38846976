import type { EvalMetric } from '@tunefleet/contracts';
import { matchesExactly, promptOf } from '@tunefleet/ml-evaluation';
import type { Candidate } from './candidates';
import { answersInWords, planAnswers, questionOf, type Question } from './answers';
import { checkLength, type Judge, type JudgeOptions, type PreparedRow, type Verdict } from './judge';
import type { EvalRow } from './read-rows';

type ExactMatchMetric = Extract<EvalMetric, { type: 'exact_match' }>;

/** The greedy text, white space trimmed, must be the reference. */
export class ExactMatchJudge implements Judge {
  readonly tokensFed = 0;

  constructor(
    private readonly metric: ExactMatchMetric,
    private readonly options: JudgeOptions,
  ) {}

  prepare(row: EvalRow): PreparedRow {
    const prompt = promptOf(this.options.tokenizer, row.row);
    checkLength(row, prompt.length + 1, this.options.maxLength);
    return { ...row, prompt, tokens: prompt.length };
  }

  plan(rows: readonly PreparedRow[], candidates: readonly Candidate[]): number[][] {
    return planAnswers(rows.map((row) => this.#question(row)), candidates, this.options);
  }

  async judge(candidate: Candidate, rows: readonly PreparedRow[]): Promise<Verdict[]> {
    const predictions = await answersInWords(candidate, rows.map((row) => this.#question(row)), this.options);
    return rows.map(({ reference }, index) => {
      const prediction = predictions[index] as string;
      return { prediction, correct: matchesExactly(prediction, reference, this.metric.ignore_case) };
    });
  }

  [Symbol.dispose](): void {
    // Holds nothing on the device.
  }

  #question(row: PreparedRow): Question {
    return questionOf(row, this.metric.max_tokens, this.options);
  }
}
