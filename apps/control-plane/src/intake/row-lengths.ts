import type { DatasetRow } from '@tunefleet/domain-datasets';

/**
 * How long rows are, known without the model's tokenizer: an expected number of tokens for plans, and one that is never exceeded for limits.
 * The worker counts exactly.
 */
export interface RowLength {
  /** Row number in the file. */
  readonly line: number;
  /** UTF-8 bytes of what the model sees of the row. */
  readonly bytes: number;
  readonly tokensExpected: number;
  readonly tokensAtMost: number;
}

export interface FileLengths {
  readonly longest: RowLength | null;
  /** Sum over the rows. */
  readonly tokensExpected: number;
}

/** English text under the tokenizers of current models; other languages and code have fewer bytes to a token. */
const BYTES_PER_TOKEN = 4;
/** The longest entries of real vocabularies (runs of spaces or dashes) are 128 bytes long. */
export const TOKEN_BYTES_MAX = 128;
/** Turn markers and the role's name. */
const TOKENS_PER_MESSAGE = 5;
const TOKENS_PER_MESSAGE_MAX = 24;
/** Start of text, and a default system message that a template may add. */
const TOKENS_PER_ROW_MAX = 64;

export function rowLength(row: DatasetRow, line: number): RowLength {
  const messages = row.format === 'chat' ? row.messages.length : 1;
  const bytes = textsOf(row).reduce((sum, text) => sum + Buffer.byteLength(text, 'utf8'), 0);
  return {
    line,
    bytes,
    tokensExpected: Math.ceil(bytes / BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * messages,
    // Tokenizers fall back to single bytes: one token a byte is the worst.
    tokensAtMost: bytes + TOKENS_PER_MESSAGE_MAX * messages + TOKENS_PER_ROW_MAX,
  };
}

/** Gathers `rowLength` over a file. */
export class LengthMeter {
  #longest: RowLength | null = null;
  #tokensExpected = 0;

  add(row: DatasetRow, line: number): void {
    const length = rowLength(row, line);
    this.#tokensExpected += length.tokensExpected;
    if (this.#longest === null || length.bytes > this.#longest.bytes) this.#longest = length;
  }

  lengths(): FileLengths {
    return { longest: this.#longest, tokensExpected: this.#tokensExpected };
  }
}

function textsOf(row: DatasetRow): string[] {
  if (row.format === 'completion') return [row.prompt, row.completion];
  // Templates write tools with indentation: that is what the blanks stand for.
  const tools = row.tools === undefined ? [] : [JSON.stringify(row.tools, null, 4)];
  return [...tools, ...row.messages.flatMap((message) => [message.content ?? '', ...(message.tool_calls ?? []).map((call) => JSON.stringify(call, null, 4))])];
}
