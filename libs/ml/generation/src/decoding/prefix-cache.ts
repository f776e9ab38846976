import { invariant } from '@tunefleet/foundation';
import type { CausalLm, KeyValueCache } from '@tunefleet/ml-models';
import { headOf, type ModelHook } from '@tunefleet/ml-nn';
import { headLogits, type Tensor } from '@tunefleet/ml-tensor';

/** Tokens per forward pass: attention scores are [heads, chunk, length so far], so this bounds the memory of long prompts. */
const CHUNK_TOKENS = 512;

/**
 * Reads what a model with one adapter (or none) expects after the tokens of a sequence. It keeps the keys and values of the last sequence, so what the next
 * one has in common with it is not computed again: the system prompt of all rows, the question of all labels, the text so far when one token is added.
 */
export class PrefixCache implements Disposable {
  readonly #cache: KeyValueCache;
  #held: Int32Array = new Int32Array(0);
  /** Tokens fed to the model so far; what was shared is not among them. */
  tokensFed = 0;

  constructor(
    readonly model: CausalLm,
    private readonly adapter: ModelHook | null = null,
  ) {
    this.#cache = model.openCache(1);
  }

  /** Tokens of the longest sequence: the model's positions, less those that virtual tokens take. */
  get longest(): number {
    return this.model.maxPositions - (this.adapter?.prefix?.length ?? 0);
  }

  /**
   * @param ids [T] a sequence from its first token on
   * @param from first position whose logits are wanted; the output head is computed for the wanted ones only. Default: the last position.
   * @returns [T - from] rows of [V] float32; row i scores the token after position from + i
   */
  read(ids: Int32Array, from = ids.length - 1): Float32Array[] {
    const { device, vocabSize } = this.model;
    const rows: Float32Array[] = [];
    this.feed(ids, from, (logits) => {
      const values = device.readFloats(logits);
      for (let row = 0; row < logits.dim(0); row++) rows.push(values.subarray(row * vocabSize, (row + 1) * vocabSize));
    });
    return rows;
  }

  /** @param use told the logits of `read`, [n, V] f32 on the device, borrowed, some rows at a time */
  feed(ids: Int32Array, from: number, use: (logits: Tensor) => void): void {
    invariant(from >= 0 && from < ids.length, `position ${from} of ${ids.length} tokens`);
    const start = Math.min(commonLength(this.#held, ids), from);
    if (start < this.#cache.length) this.#cache.truncate(start);
    this.#held = ids.slice(0, start);
    for (let begin = start; begin < ids.length; begin += CHUNK_TOKENS) {
      const chunk = ids.slice(begin, begin + CHUNK_TOKENS);
      this.#feed(chunk, Math.max(0, from - begin), use);
    }
    this.#held = ids.slice();
    this.tokensFed += ids.length - start;
  }

  [Symbol.dispose](): void {
    this.#cache[Symbol.dispose]();
  }

  /** @param first index in `ids` of the first row wanted */
  #feed(ids: Int32Array, first: number, use: (logits: Tensor) => void): void {
    // At least one, so that there is something to compute.
    const outputRows = Int32Array.from({ length: Math.max(1, ids.length - first) }, (_, index) => Math.min(first, ids.length - 1) + index);
    // No scope around this: the cache keeps tensors made in here.
    using hidden = this.model.forward({ ids, rows: 1, columns: ids.length }, { cache: this.#cache, adapter: this.adapter, outputRows }); // [wanted, C]
    const wanted = ids.length - first;
    if (wanted <= 0) return;
    using logits = headLogits(hidden, headOf(this.model, this.adapter)); // [wanted, V]
    use(logits);
  }
}

/** How many leading tokens are equal. */
export function commonLength(a: Int32Array, b: Int32Array): number {
  const end = Math.min(a.length, b.length);
  let length = 0;
  while (length < end && a[length] === b[length]) length++;
  return length;
}
