import type { EvalMetric, EvalSpec } from '@tunefleet/contracts';
import { assertNever, errorCode, errorMessage } from '@tunefleet/foundation';
import { labelSequences, matchesExactly, promptOf, scoreLabels } from '@tunefleet/ml-evaluation';
import { generate, type PrefixCache } from '@tunefleet/ml-generation';
import type { TextTokenizer } from '@tunefleet/ml-tokenizers';
import { badRow, type EvalRow } from './read-rows';

export interface Verdict {
  readonly prediction: string;
  readonly correct: boolean;
  /** Log-likelihood per label. */
  readonly scores?: number[];
}

/** A row made ready for one metric: tokenised and known to fit. */
export interface PreparedRow extends EvalRow {
  /** Tokens held for it. */
  readonly tokens: number;
  readonly prompt: Int32Array;
  judge(cache: PrefixCache): Promise<Verdict>;
}

export interface JudgeOptions {
  readonly tokenizer: TextTokenizer;
  /** Longest sequence a row may take. */
  readonly maxLength: number;
  readonly stopIds: ReadonlySet<number>;
  readonly signal: AbortSignal;
}

/** @throws TunefleetError `invalid_input` with the row number: reference not among the labels, too long, refused by the chat template */
export function prepareRow(row: EvalRow, metric: EvalSpec['metric'], options: JudgeOptions): PreparedRow {
  try {
    const prompt = promptOf(options.tokenizer, row.row);
    switch (metric.type) {
      case 'label_likelihood':
        return prepareLabels(row, prompt, metric, options);
      case 'exact_match':
        return prepareExactMatch(row, prompt, metric, options);
      default:
        return assertNever(metric, 'metric');
    }
  } catch (error) {
    if (errorCode(error) === 'invalid_input' && !errorMessage(error).startsWith('file:')) throw badRow(`row ${row.number}: ${errorMessage(error)}`, { row: row.number });
    throw error;
  }
}

function prepareLabels(row: EvalRow, prompt: Int32Array, metric: EvalMetric & { type: 'label_likelihood' }, options: JudgeOptions): PreparedRow {
  const wanted = metric.labels.findIndex((label) => label.trim() === row.reference.trim());
  if (wanted < 0) {
    throw badRow(`row ${row.number}: the answer is ${JSON.stringify(row.reference.slice(0, 80))}, which is none of the labels ${metric.labels.map((label) => JSON.stringify(label)).join(', ')}; correct the row or add the label`, { row: row.number }, 'answer_not_a_label');
  }
  const sequences = labelSequences(options.tokenizer, row.row, metric.labels);
  const longest = Math.max(...sequences.map(({ ids }) => ids.length));
  checkLength(row, longest, options.maxLength);
  return {
    ...row,
    prompt,
    tokens: sequences.reduce((total, { ids }) => total + ids.length, 0),
    judge: async (cache) => {
      const scores = scoreLabels(cache, sequences);
      const compared = metric.normalise === 'none' ? scores : scores.map((score, index) => score / answerLength(sequences[index]));
      const best = compared.indexOf(Math.max(...compared));
      return { prediction: metric.labels[best] as string, correct: best === wanted, scores };
    },
  };
}

function answerLength(sequence: { readonly ids: Int32Array; readonly answerStart: number } | undefined): number {
  return sequence === undefined ? 1 : sequence.ids.length - sequence.answerStart;
}

function prepareExactMatch(row: EvalRow, prompt: Int32Array, metric: EvalMetric & { type: 'exact_match' }, options: JudgeOptions): PreparedRow {
  checkLength(row, prompt.length + 1, options.maxLength);
  return {
    ...row,
    prompt,
    tokens: prompt.length,
    judge: async (cache) => {
      const maxTokens = Math.min(metric.max_tokens, options.maxLength - prompt.length);
      const prediction = await answerInWords(cache, prompt, { ...options, maxTokens });
      return { prediction, correct: matchesExactly(prediction, row.reference, metric.ignore_case) };
    },
  };
}

/** Greedy text. */
export async function answerInWords(cache: PrefixCache, prompt: Int32Array, options: Omit<JudgeOptions, 'maxLength'> & { readonly maxTokens: number }): Promise<string> {
  const { ids } = await generate(cache, prompt, options);
  return options.tokenizer.decode(ids, { skipSpecialTokens: true });
}

function checkLength({ number }: EvalRow, tokens: number, limit: number): void {
  if (tokens <= limit) return;
  throw badRow(`row ${number} has ${tokens} tokens, more than the maximum sequence length ${limit}; shorten the row or raise max_seq_length`, { row: number, tokens, limit }, 'row_too_long');
}
