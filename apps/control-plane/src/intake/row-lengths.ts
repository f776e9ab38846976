import type { AnyDatasetRow, ChatRow } from '@tunefleet/domain-datasets';

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

/** Of a preference row: of the longer of its two conversations. */
export function rowLength(row: AnyDatasetRow, line: number): RowLength {
  const [first, ...others] = conversationsOf(row).map((conversation) => lengthOf(conversation, line));
  return others.reduce((longest, each) => (each.bytes > longest.bytes ? each : longest), first as RowLength);
}

interface Conversation {
  readonly messages: number;
  readonly texts: readonly string[];
}

function lengthOf({ messages, texts }: Conversation, line: number): RowLength {
  const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text, 'utf8'), 0);
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

  add(row: AnyDatasetRow, line: number): void {
    const length = rowLength(row, line);
    // Both conversations of a preference row go through the model.
    this.#tokensExpected += conversationsOf(row).reduce((sum, conversation) => sum + lengthOf(conversation, line).tokensExpected, 0);
    if (this.#longest === null || length.bytes > this.#longest.bytes) this.#longest = length;
  }

  lengths(): FileLengths {
    return { longest: this.#longest, tokensExpected: this.#tokensExpected };
  }
}

function conversationsOf(row: AnyDatasetRow): Conversation[] {
  switch (row.format) {
    case 'completion':
      return [{ messages: 1, texts: [row.prompt, row.completion] }];
    case 'text':
      return [{ messages: 0, texts: [row.text] }];
    case 'chat':
      return [conversation(row, row.messages)];
    case 'preference':
      return [row.preferred_output, row.non_preferred_output].map((answer) => conversation(row.input, [...row.input.messages, ...answer]));
  }
}

function conversation({ tools }: Pick<ChatRow, 'tools'>, messages: ChatRow['messages']): Conversation {
  // Templates write tools with indentation: that is what the blanks stand for.
  const offered = tools === undefined ? [] : [JSON.stringify(tools, null, 4)];
  return { messages: messages.length, texts: [...offered, ...messages.flatMap((message) => [message.content ?? '', ...(message.tool_calls ?? []).map((call) => JSON.stringify(call, null, 4))])] };
}
