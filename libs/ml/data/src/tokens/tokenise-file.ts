import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { TunefleetError, canonicalJson, errorCode, errorMessage, sha256Hex } from '@tunefleet/foundation';
import { parsePreferenceRow, parseRow, parseTextRow, splitLines, type AnyDatasetRow, type DatasetRow, type PreferenceDatasetRow, type RowParser } from '@tunefleet/domain-datasets';
import { renderCompletion, renderConversation, type TextTokenizer } from '@tunefleet/ml-tokenizers';
import { IGNORED_LABEL, type TokenisedDataset, type TokenisedExample } from '../tokenised-dataset';
import { fitLength, type OverLongPolicy } from './fit-length';
import { tokenStatistics, type TokenStatistics } from './statistics';
import { TokenCache } from './token-cache';
import { packIntoRows } from './pack-text';
import { PackedDataset, TokenPool } from './token-pool';

/** Part of every fingerprint: raise it when the same file would give other tokens. */
const TOKENS_VERSION = 1;
/** Rows between looks at the signal and turns of the event loop. */
const ROWS_PER_TURN = 64;

/** Which rows a file holds, by what they are for. */
export type RowPurpose = 'supervised' | 'dpo' | 'pretraining';

const PARSERS: Readonly<Record<RowPurpose, RowParser<AnyDatasetRow>>> = { supervised: parseRow, dpo: parsePreferenceRow, pretraining: parseTextRow };

export interface TokeniseOptions {
  readonly tokenizer: TextTokenizer;
  /** Default `supervised`. `dpo`: two examples per row, the preferred answer first. `pretraining`: documents joined and cut into rows of up to `maxLength`. */
  readonly purpose?: RowPurpose;
  readonly maxLength: number;
  /** Default `error`. */
  readonly overLong?: OverLongPolicy;
  /** SHA-256 of the file where it is known; computed otherwise. */
  readonly fileSha256?: string;
  /** Folder for token files; nothing is cached when absent. */
  readonly cacheDirectory?: string;
  /** The request field for errors. Default `training_file`. */
  readonly param?: string;
  readonly signal?: AbortSignal;
  /** Called now and then with the rows done. */
  readonly onProgress?: (rows: number) => void;
}

export interface TokenisedFile {
  readonly dataset: TokenisedDataset;
  readonly statistics: TokenStatistics;
  readonly fromCache: boolean;
}

/**
 * Turns a JSONL file into tokens with a loss mask.
 * @throws TunefleetError `invalid_input` with the row number for bad or over-long rows, `cancelled` when the signal aborts
 */
export async function tokeniseFile(path: string, options: TokeniseOptions): Promise<TokenisedFile> {
  const { tokenizer, maxLength, overLong = 'error', cacheDirectory, purpose = 'supervised' } = options;
  const fileSha256 = options.fileSha256 ?? (await hashFile(path));
  const fingerprint = sha256Hex(canonicalJson({ version: TOKENS_VERSION, fileSha256, tokenizer: tokenizer.fingerprint, maxLength, overLong, ...(purpose === 'supervised' ? {} : { purpose }) }));
  const cache = cacheDirectory === undefined ? null : new TokenCache(cacheDirectory);
  const cached = await cache?.read(fingerprint);
  if (cached) return { dataset: new PackedDataset(fingerprint, cached.packed), statistics: tokenStatistics(cached.packed, cached.truncated), fromCache: true };

  const pool = new TokenPool();
  let truncated = 0;
  let rows = 0;
  for await (const { number, text, fault } of splitLines(createReadStream(path, { highWaterMark: 1 << 18 }))) {
    const row = text === null ? null : PARSERS[purpose](text, number);
    if (row === null || !row.ok) throw badRow(row?.problems[0]?.message ?? `row ${number}: ${fault}`, options);
    for (const whole of examplesOfRow(tokenizer, row.row, number, options)) {
      const example = row.row.format === 'text' ? whole : fitLength(whole, { maxLength, policy: overLong, bos: tokenizer.special.bos, row: number, param: options.param ?? 'training_file' });
      if (example !== whole) truncated += 1;
      pool.add(example);
    }
    rows += 1;
    if (rows % ROWS_PER_TURN === 0) {
      await new Promise((resolve) => setImmediate(resolve));
      if (options.signal?.aborted) throw new TunefleetError('cancelled', `stopped after ${rows} rows`);
      options.onProgress?.(rows);
    }
  }
  if (rows === 0) throw badRow('the file has no rows', options);
  const packed = purpose === 'pretraining' ? packIntoRows(pool.finish(), maxLength) : pool.finish();
  if (packed.ids.length < 2) throw badRow('the file gives no token to learn; write longer texts', options);
  await cache?.write(fingerprint, { packed, truncated });
  return { dataset: new PackedDataset(fingerprint, packed), statistics: tokenStatistics(packed, truncated), fromCache: false };
}

function examplesOfRow(tokenizer: TextTokenizer, row: AnyDatasetRow, number: number, options: Pick<TokeniseOptions, 'param'>): TokenisedExample[] {
  switch (row.format) {
    case 'preference':
      return tokenisePreference(tokenizer, row, number, options);
    case 'text':
      return [tokeniseText(tokenizer, row.text)];
    default:
      return [tokeniseRow(tokenizer, row, number, options)];
  }
}

/** The two conversations of a preference row; only the two answers are learned. */
function tokenisePreference(tokenizer: TextTokenizer, { input, preferred_output: preferred, non_preferred_output: other }: PreferenceDatasetRow, number: number, options: Pick<TokeniseOptions, 'param'>): TokenisedExample[] {
  const { tools } = input;
  const context = input.messages.map((message) => (message.role === 'assistant' ? { ...message, weight: 0 as const } : message));
  return [preferred, other].map((answer) => tokeniseRow(tokenizer, { format: 'chat', messages: [...context, ...answer], ...(tools === undefined ? {} : { tools }) }, number, options));
}

/** A document between the tokens by which the tokenizer begins and ends texts. All of it is learned. */
function tokeniseText(tokenizer: TextTokenizer, text: string): TokenisedExample {
  const ids = tokenizer.encode(text, { addSpecialTokens: true });
  const { eos } = tokenizer.special;
  const inputIds = eos === null || ids.at(-1) === eos ? ids : Int32Array.from([...ids, eos]);
  return { inputIds, labels: inputIds };
}

/** One checked row as tokens. @throws TunefleetError `invalid_input` naming the row when the chat template refuses it or nothing is learned */
export function tokeniseRow(tokenizer: TextTokenizer, row: DatasetRow, number: number, options: Pick<TokeniseOptions, 'param'> = {}): TokenisedExample {
  let example: TokenisedExample;
  try {
    example = row.format === 'chat' ? renderConversation(tokenizer, row.messages, { tools: row.tools }) : renderCompletion(tokenizer, row.prompt, row.completion);
  } catch (error) {
    if (errorCode(error) === 'invalid_input') throw badRow(`row ${number}: ${errorMessage(error)}`, options, error);
    throw error;
  }
  // The first token is never predicted, so it cannot be the only one learned.
  if (!example.labels.subarray(1).some((label) => label !== IGNORED_LABEL)) throw badRow(`row ${number}: gives no token to learn; write a longer answer`, options);
  return example;
}

function badRow(message: string, { param = 'training_file' }: Pick<TokeniseOptions, 'param'>, cause?: unknown): TunefleetError {
  return new TunefleetError('invalid_input', `${param}: ${message}`, { reason: `invalid_${param}`, param, cause });
}

async function hashFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}
