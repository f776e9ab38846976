import { TunefleetError } from '@tunefleet/foundation';
import { TOKEN_BYTES_MAX, type FileLengths } from './row-lengths';

export interface SequenceQuestion {
  /** What the request says; null: as long as the rows need. */
  readonly asked: number | null;
  /** What the model was made for. */
  readonly maxPositions: number;
  readonly files: readonly { readonly param: string; readonly lengths: FileLengths }[];
}

export interface SequenceAnswer {
  readonly maxSequenceLength: number;
  /** Of the longest row, as it is expected to be. */
  readonly tokensExpected: number;
  /** What people should know before the worker counts. */
  readonly notices: readonly string[];
}

const STEP = 64;
const LENGTH_MIN = 8;
/** Tokens of a row of plain text where the request leaves it open. */
const TEXT_ROW = 1024;

/**
 * Settles the longest sequence. Left to us, it is as long as the longest row can possibly be, within what the model can do, so that
 * no row is refused without need. @throws invalid_input with the row number for a row that cannot fit whatever the tokenizer
 */
export function settleSequenceLength({ asked, maxPositions, files }: SequenceQuestion): SequenceAnswer {
  refuseBeyondModel(asked, maxPositions);
  const atMost = Math.max(LENGTH_MIN, ...files.map(({ lengths }) => lengths.longest?.tokensAtMost ?? 0));
  const maxSequenceLength = asked ?? Math.min(maxPositions, Math.ceil(atMost / STEP) * STEP);
  const notices: string[] = [];
  for (const { param, lengths } of files) {
    const row = lengths.longest;
    if (row === null) continue;
    if (row.bytes > TOKEN_BYTES_MAX * maxSequenceLength) throw tooLong(param, row.line, Math.ceil(row.bytes / TOKEN_BYTES_MAX), { maxSequenceLength, maxPositions });
    if (row.tokensExpected > maxSequenceLength) {
      notices.push(`${param}: row ${row.line} has about ${row.tokensExpected} tokens, more than the maximum sequence length ${maxSequenceLength}. The worker counts exactly and refuses rows that are too long`);
    }
  }
  const tokensExpected = Math.min(maxSequenceLength, Math.max(LENGTH_MIN, ...files.map(({ lengths }) => lengths.longest?.tokensExpected ?? 0)));
  return { maxSequenceLength, tokensExpected, notices };
}

/** Length of the rows into which plain text is cut, however long documents are. */
export function settleTextRows({ asked, maxPositions }: Pick<SequenceQuestion, 'asked' | 'maxPositions'>): SequenceAnswer {
  refuseBeyondModel(asked, maxPositions);
  const maxSequenceLength = asked ?? Math.min(maxPositions, TEXT_ROW);
  return { maxSequenceLength, tokensExpected: maxSequenceLength, notices: [] };
}

function refuseBeyondModel(asked: number | null, maxPositions: number): void {
  if (asked === null || asked <= maxPositions) return;
  throw new TunefleetError('invalid_input', `max_seq_length is ${asked}, but the model was made for at most ${maxPositions} tokens: ask for ${maxPositions} or fewer`, {
    reason: 'sequence_too_long_for_model',
    param: 'max_seq_length',
  });
}

function tooLong(param: string, line: number, tokensAtLeast: number, { maxSequenceLength, maxPositions }: { maxSequenceLength: number; maxPositions: number }): TunefleetError {
  const advice = maxSequenceLength < maxPositions ? `shorten the row, or raise max_seq_length (at most ${maxPositions} for this model)` : 'shorten the row, or split it';
  return new TunefleetError('invalid_input', `${param}: row ${line}: has at least ${tokensAtLeast} tokens, more than the maximum sequence length ${maxSequenceLength}; ${advice}`, {
    reason: 'row_too_long',
    param,
    details: { row: line, tokensAtLeast, limit: maxSequenceLength },
  });
}
