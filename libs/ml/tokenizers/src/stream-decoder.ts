/** What a decoder shows for bytes that do not yet make a character. */
const REPLACEMENT = '\uFFFD';
/** A character is at most 4 bytes, so at most 4 byte tokens; longer runs are really broken text and are let through. */
const HELD_TOKENS_MAX = 8;

/**
 * Turns a growing list of token ids into text pieces whose concatenation equals decoding the whole list.
 * Only the tokens since the last clean border are decoded again, together with the piece before it, because a token's text may depend on its neighbour.
 */
export class StreamDecoder {
  readonly #decode: (ids: readonly number[]) => string;
  #context: number[] = [];
  #pending: number[] = [];

  constructor(decode: (ids: readonly number[]) => string) {
    this.#decode = decode;
  }

  /** @returns the new text, empty while a character is incomplete */
  push(id: number): string {
    this.#pending.push(id);
    const text = this.#newText();
    if (text.endsWith(REPLACEMENT) && this.#pending.length < HELD_TOKENS_MAX) return '';
    this.#context = this.#pending;
    this.#pending = [];
    return text;
  }

  /** @returns whatever was held back */
  end(): string {
    const text = this.#newText();
    this.#context = [];
    this.#pending = [];
    return text;
  }

  #newText(): string {
    if (this.#pending.length === 0) return '';
    const before = this.#decode(this.#context);
    const both = this.#decode([...this.#context, ...this.#pending]);
    return both.slice(before.length);
  }
}
