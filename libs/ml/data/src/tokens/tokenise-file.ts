import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { TunefleetError, canonicalJson, sha256Hex } from '@tunefleet/foundation';
import { splitLines, type Line } from '@tunefleet/domain-datasets';
import type { TextTokenizer } from '@tunefleet/ml-tokenizers';
import type { TokenisedDataset } from '../tokenised-dataset';
import type { OverLongPolicy } from './fit-length';
import { inBatches, mapAhead } from './map-ahead';
import { packIntoRows } from './pack-text';
import { tokenStatistics, type TokenStatistics } from './statistics';
import { TokenCache } from './token-cache';
import { PackedDataset, TokenPool } from './token-pool';
import { TokeniserThreads } from './tokeniser-threads';
import { badRow, tokeniseLines, type LineOptions, type RowPurpose, type TokenisedLines } from './tokenise-lines';

/** Part of every fingerprint: raise it when the same file would give other tokens. */
const TOKENS_VERSION = 1;
/** Rows between looks at the signal and turns of the event loop; what a thread is given at a time. */
const ROWS_PER_TURN = 64;
/** Batches that wait for a thread, so that none is idle while the file is read. */
const BATCHES_AHEAD = 2;
/** Below this size of file, threads take longer to start than they save: each parses the tokenizer's files. */
const THREADED_FROM_BYTES = 4 * 2 ** 20;

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
  /** Large files are tokenised by so many threads of the built `tokenise-thread`; by the calling thread when absent. */
  readonly threads?: { readonly script: string; readonly count: number; readonly fromBytes?: number };
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
 * Turns a JSONL file into tokens with a loss mask; the file is streamed, its tokens are held. The same with any number of threads.
 * @throws TunefleetError `invalid_input` with the row number for bad or over-long rows, `cancelled` when the signal aborts
 */
export async function tokeniseFile(path: string, options: TokeniseOptions): Promise<TokenisedFile> {
  const { tokenizer, maxLength, overLong = 'error', cacheDirectory, purpose = 'supervised', param = 'training_file' } = options;
  const fileSha256 = options.fileSha256 ?? (await hashFile(path));
  const fingerprint = sha256Hex(canonicalJson({ version: TOKENS_VERSION, fileSha256, tokenizer: tokenizer.fingerprint, maxLength, overLong, ...(purpose === 'supervised' ? {} : { purpose }) }));
  const cache = cacheDirectory === undefined ? null : new TokenCache(cacheDirectory);
  const cached = await cache?.read(fingerprint);
  if (cached) return { dataset: new PackedDataset(fingerprint, cached.packed), statistics: tokenStatistics(cached.packed, cached.truncated), fromCache: true };

  const { pool, truncated, rows } = await tokeniseRows(path, options, { purpose, maxLength, overLong, param });
  if (rows === 0) throw badRow('the file has no rows', param);
  const packed = purpose === 'pretraining' ? packIntoRows(pool.finish(), maxLength) : pool.finish();
  if (packed.ids.length < 2) throw badRow('the file gives no token to learn; write longer texts', param);
  await cache?.write(fingerprint, { packed, truncated });
  return { dataset: new PackedDataset(fingerprint, packed), statistics: tokenStatistics(packed, truncated), fromCache: false };
}

async function tokeniseRows(path: string, { tokenizer, threads: wanted, signal, onProgress }: TokeniseOptions, options: LineOptions): Promise<{ readonly pool: TokenPool; readonly truncated: number; readonly rows: number }> {
  await using threads = wanted !== undefined && (await stat(path)).size >= (wanted.fromBytes ?? THREADED_FROM_BYTES) ? new TokeniserThreads(wanted.script, wanted.count, { sources: tokenizer.sources, options }) : null;
  const tokenise = async (lines: readonly Line[]): Promise<TokenisedLines & { readonly rows: number }> => {
    if (threads === null) await new Promise((resolve) => setImmediate(resolve));
    return { ...(await (threads?.tokenise(lines) ?? tokeniseLines(tokenizer, lines, options))), rows: lines.length };
  };
  const batches = inBatches(splitLines(createReadStream(path, { highWaterMark: 1 << 18 })), ROWS_PER_TURN);
  const pool = new TokenPool();
  let [truncated, rows] = [0, 0];
  for await (const part of mapAhead(batches, tokenise, threads === null ? 1 : BATCHES_AHEAD * (wanted?.count ?? 1))) {
    pool.append(part.packed);
    [truncated, rows] = [truncated + part.truncated, rows + part.rows];
    if (signal?.aborted) throw new TunefleetError('cancelled', `stopped after ${rows} rows`);
    onProgress?.(rows);
  }
  return { pool, truncated, rows };
}

async function hashFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}
