import { TunefleetError, errorCode, errorMessage } from '@tunefleet/foundation';
import { parsePreferenceRow, parseRow, parseTextRow, type AnyDatasetRow, type DatasetRow, type Line, type PreferenceDatasetRow, type RowParser } from '@tunefleet/domain-datasets';
import { renderCompletion, renderConversation, type TextTokenizer } from '@tunefleet/ml-tokenizers';
import { IGNORED_LABEL, type TokenisedExample } from '../tokenised-dataset';
import { fitLength, type OverLongPolicy } from './fit-length';
import { TokenPool, type PackedTokens } from './token-pool';

/** Which rows a file holds, by what they are for. */
export type RowPurpose = 'supervised' | 'dpo' | 'pretraining';

export interface LineOptions {
  readonly purpose: RowPurpose;
  readonly maxLength: number;
  readonly overLong: OverLongPolicy;
  /** The request field for errors. */
  readonly param: string;
}

export interface TokenisedLines {
  readonly packed: PackedTokens;
  readonly truncated: number;
}

const PARSERS: Readonly<Record<RowPurpose, RowParser<AnyDatasetRow>>> = { supervised: parseRow, dpo: parsePreferenceRow, pretraining: parseTextRow };

/** @throws TunefleetError `invalid_input` with the row number for bad or over-long rows */
export function tokeniseLines(tokenizer: TextTokenizer, lines: readonly Line[], { purpose, maxLength, overLong, param }: LineOptions): TokenisedLines {
  const pool = new TokenPool();
  let truncated = 0;
  for (const { number, text, fault } of lines) {
    const parsed = text === null ? null : PARSERS[purpose](text, number);
    if (parsed === null || !parsed.ok) throw badRow(parsed?.problems[0]?.message ?? `row ${number}: ${fault}`, param);
    for (const whole of examplesOfRow(tokenizer, parsed.row, number, param)) {
      const example = parsed.row.format === 'text' ? whole : fitLength(whole, { maxLength, policy: overLong, bos: tokenizer.special.bos, row: number, param });
      if (example !== whole) truncated += 1;
      pool.add(example);
    }
  }
  return { packed: pool.finish(), truncated };
}

/** One checked row as tokens. @throws TunefleetError `invalid_input` naming the row when the chat template refuses it or nothing is learned */
export function tokeniseRow(tokenizer: TextTokenizer, row: DatasetRow, number: number, param = 'training_file'): TokenisedExample {
  let example: TokenisedExample;
  try {
    example = row.format === 'chat' ? renderConversation(tokenizer, row.messages, { tools: row.tools }) : renderCompletion(tokenizer, row.prompt, row.completion);
  } catch (error) {
    if (errorCode(error) === 'invalid_input') throw badRow(`row ${number}: ${errorMessage(error)}`, param, error);
    throw error;
  }
  // The first token is never predicted, so it cannot be the only one learned.
  if (!example.labels.subarray(1).some((label) => label !== IGNORED_LABEL)) throw badRow(`row ${number}: gives no token to learn; write a longer answer`, param);
  return example;
}

export function badRow(message: string, param: string, cause?: unknown): TunefleetError {
  return new TunefleetError('invalid_input', `${param}: ${message}`, { reason: `invalid_${param}`, param, cause });
}

function examplesOfRow(tokenizer: TextTokenizer, row: AnyDatasetRow, number: number, param: string): TokenisedExample[] {
  switch (row.format) {
    case 'preference':
      return tokenisePreference(tokenizer, row, number, param);
    case 'text':
      return [tokeniseText(tokenizer, row.text)];
    default:
      return [tokeniseRow(tokenizer, row, number, param)];
  }
}

/** The two conversations of a preference row; only the two answers are learned. */
function tokenisePreference(tokenizer: TextTokenizer, { input, preferred_output: preferred, non_preferred_output: other }: PreferenceDatasetRow, number: number, param: string): TokenisedExample[] {
  const { tools } = input;
  const context = input.messages.map((message) => (message.role === 'assistant' ? { ...message, weight: 0 as const } : message));
  return [preferred, other].map((answer) => tokeniseRow(tokenizer, { format: 'chat', messages: [...context, ...answer], ...(tools === undefined ? {} : { tools }) }, number, param));
}

/** A document between the tokens by which the tokenizer begins and ends texts. All of it is learned. */
function tokeniseText(tokenizer: TextTokenizer, text: string): TokenisedExample {
  const ids = tokenizer.encode(text, { addSpecialTokens: true });
  const { eos } = tokenizer.special;
  const inputIds = eos === null || ids.at(-1) === eos ? ids : Int32Array.from([...ids, eos]);
  return { inputIds, labels: inputIds };
}
