import type { EvalMetric } from '@tunefleet/contracts';
import { matchesExactly, promptOf } from '@tunefleet/ml-evaluation';
import type { Candidate } from './candidates';
import { answerInWords, checkLength, type Judge, type JudgeOptions, type PreparedRow, type Verdict } from './judge';
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

  plan(rows: readonly PreparedRow[]): number[][] {
    return rows.map((_, index) => [index]);
  }

  async judge({ cache }: Candidate, rows: readonly PreparedRow[]): Promise<Verdict[]> {
    const verdicts: Verdict[] = [];
    for (const { prompt, reference } of rows) {
      const maxTokens = Math.min(this.metric.max_tokens, this.options.maxLength - prompt.length);
      const prediction = await answerInWords(cache, prompt, { ...this.options, maxTokens });
      verdicts.push({ prediction, correct: matchesExactly(prediction, reference, this.metric.ignore_case) });
    }
    return verdicts;
  }

  [Symbol.dispose](): void {
    // Holds nothing on the device.
  }
}
