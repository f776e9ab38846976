import { errorCode, errorMessage } from '@tunefleet/foundation';
import type { TextTokenizer } from '@tunefleet/ml-tokenizers';
import type { Candidate } from './candidates';
import { badRow, type EvalRow } from './read-rows';

export interface Verdict {
  readonly prediction: string;
  readonly correct: boolean;
  /** Log-likelihood per label. */
  readonly scores?: number[];
}

/** A row tokenised and known to fit. */
export interface PreparedRow extends EvalRow {
  /** Ids after which the model is to answer. */
  readonly prompt: Int32Array;
  /** Tokens held for it in memory. */
  readonly tokens: number;
}

/** One way to tell right answers from wrong ones. */
export interface Judge<Row extends PreparedRow = PreparedRow> extends Disposable {
  /** @throws TunefleetError `invalid_input` when the row cannot be judged */
  prepare(row: EvalRow): Row;
  /** Which of these rows to judge together: groups of indices. A stop is looked for between groups. */
  plan(rows: readonly Row[], candidates: readonly Candidate[]): number[][];
  /** @returns a verdict per row */
  judge(candidate: Candidate, rows: readonly Row[]): Promise<Verdict[]>;
  /** Tokens fed to the model, beyond those of the candidates' generators. */
  readonly tokensFed: number;
}

export interface JudgeOptions {
  readonly tokenizer: TextTokenizer;
  /** Longest sequence a row may take. */
  readonly maxLength: number;
  readonly stopIds: ReadonlySet<number>;
  readonly signal: AbortSignal;
  /** What texts may take of the device while they are written. */
  readonly availableBytes: number;
}

/** `judge.prepare`, with the row number in what it throws. */
export function prepareRow(judge: Judge, row: EvalRow): PreparedRow {
  try {
    return judge.prepare(row);
  } catch (error) {
    if (errorCode(error) === 'invalid_input' && !errorMessage(error).startsWith('file:')) throw badRow(`row ${row.number}: ${errorMessage(error)}`, { row: row.number });
    throw error;
  }
}

/** @throws TunefleetError `invalid_input` with row, length and limit */
export function checkLength({ number }: EvalRow, tokens: number, limit: number): void {
  if (tokens <= limit) return;
  throw badRow(`row ${number} has ${tokens} tokens, more than the maximum sequence length ${limit}; shorten the row or raise max_seq_length`, { row: number, tokens, limit }, 'row_too_long');
}
