import { TunefleetError } from '@tunefleet/foundation';
import type { CausalLm, KeyValueCache } from '@tunefleet/ml-models';
import { headOf, type ModelHook } from '@tunefleet/ml-nn';
import { headLogits } from '@tunefleet/ml-tensor';
import { chooseTokens } from '../sampling';
import { checkPrompt, type GenerateOptions, type Generation } from './generate';

/** Tokens of prompts per forward pass, of all rows together: it bounds the memory of their activations and scores. */
const PASS_TOKENS = 1024;

export interface BatchOptions extends Pick<GenerateOptions, 'sampling' | 'stopIds' | 'signal'> {
  /** Most tokens to add, of every prompt or of each; fewer where the model's longest sequence ends before. */
  readonly maxTokens: number | readonly number[];
}

/** A text in the making. */
interface Row {
  /** Index of its prompt. */
  readonly prompt: number;
  readonly ids: number[];
  readonly maxTokens: number;
}

/** Continues several prompts at once under a model with one adapter (or none): a step costs little more than that of one text, as the weights are read once. */
export class BatchGenerator {
  /** Tokens fed to the model so far, without padding. */
  tokensFed = 0;

  constructor(
    readonly model: CausalLm,
    private readonly adapter: ModelHook | null = null,
  ) {}

  /** Tokens of the longest sequence: the model's positions, less those that virtual tokens take. */
  get longest(): number {
    return this.model.maxPositions - (this.adapter?.prefix?.length ?? 0);
  }

  /** Device bytes that a text of so many tokens takes while it is written, beside the model. */
  bytesPerRow(tokens: number): number {
    const { layers, keyValueHeads, headDim, vocabSize, computeDtype, maxPositions } = this.model;
    const keysAndValues = 2 * layers * keyValueHeads * headDim * (computeDtype === 'bf16' ? 2 : 4);
    // Half as much again for the room that the cache keeps and for growing; logits in two dtypes.
    return 1.5 * keysAndValues * (tokens + maxPositions - this.longest) + 6 * vocabSize;
  }

  /**
   * Every prompt gets the text that it gets from `generate` alone, but for rounding: products of several rows are summed in another order.
   * Rows that end leave the batch. The event loop gets a turn after every step.
   * @returns in the order of the prompts
   * @throws as `generate` does
   */
  async generate(prompts: readonly Int32Array[], options: BatchOptions): Promise<Generation[]> {
    const { signal } = options;
    for (const prompt of prompts) checkPrompt(prompt, this.longest);
    const done: Generation[] = [];
    let rows = prompts.map((prompt, index): Row => ({ prompt: index, ids: [], maxTokens: Math.min(limitOf(options, index), this.longest - prompt.length) }));
    rows = this.#unfinished(rows, done);
    if (rows.length === 0) return done;
    using cache = this.model.openCache(rows.length);
    let tokens = this.#readPrompts(cache, rows.map(({ prompt }) => prompts[prompt] as Int32Array), options);
    for (;;) {
      const stopped = this.#add(rows, tokens, options);
      const kept = this.#unfinished(rows, done, stopped);
      if (kept.length === 0) return done;
      if (kept.length < rows.length) cache.keepRows(Int32Array.from(kept, (row) => rows.indexOf(row)));
      rows = kept;
      await new Promise((resolve) => setImmediate(resolve));
      if (signal?.aborted) throw new TunefleetError('cancelled', `stopped after ${rows[0]?.ids.length} tokens of ${rows.length} texts`);
      const last = Int32Array.from(rows, ({ ids }) => ids.at(-1) as number);
      tokens = this.#next(cache, { ids: last, columns: 1 }, null, rows[0]?.ids.length ?? 0, options);
      this.tokensFed += rows.length;
    }
  }

  /** Feeds all prompts, padded on the right, some columns at a time. @returns the first new token of each */
  #readPrompts(cache: KeyValueCache, prompts: readonly Int32Array[], options: BatchOptions): Int32Array {
    const lengths = Int32Array.from(prompts, (prompt) => prompt.length);
    const longest = Math.max(...lengths);
    const width = Math.max(1, Math.floor(PASS_TOKENS / prompts.length));
    const tokens = new Int32Array(prompts.length);
    for (let begin = 0; begin < longest; begin += width) {
      const columns = Math.min(width, longest - begin);
      const ids = Int32Array.from({ length: prompts.length * columns }, (_, i) => prompts[Math.floor(i / columns)]?.[begin + (i % columns)] ?? 0);
      const ending = [...lengths.keys()].filter((row) => begin < (lengths[row] ?? 0) && (lengths[row] ?? 0) <= begin + columns);
      const outputRows = Int32Array.from(ending, (row) => row * columns + (lengths[row] ?? 0) - 1 - begin);
      this.#next(cache, { ids, columns }, outputRows, 0, options).forEach((token, index) => (tokens[ending[index] as number] = token));
    }
    cache.truncate(lengths);
    this.tokensFed += lengths.reduce((sum, length) => sum + length, 0);
    return tokens;
  }

  /** @param outputRows tokens after which one is wanted; null: after every one */
  #next(cache: KeyValueCache, { ids, columns }: { readonly ids: Int32Array; readonly columns: number }, outputRows: Int32Array | null, position: number, { sampling }: BatchOptions): Int32Array {
    const { model, adapter } = this;
    const nothing = outputRows?.length === 0;
    using hidden = model.forward({ ids, rows: cache.rows, columns }, { cache, adapter, outputRows: nothing ? Int32Array.of(0) : outputRows });
    if (nothing) return new Int32Array();
    using logits = headLogits(hidden, headOf(model, adapter));
    return chooseTokens(logits, position, sampling);
  }

  /** @returns rows whose text a stop token ended */
  #add(rows: readonly Row[], tokens: Int32Array, { stopIds }: BatchOptions): ReadonlySet<Row> {
    const stopped = new Set<Row>();
    rows.forEach((row, index) => {
      const token = tokens[index] as number;
      if (stopIds.has(token)) stopped.add(row);
      else row.ids.push(token);
    });
    return stopped;
  }

  /** Notes the texts that are complete. @returns the others */
  #unfinished(rows: readonly Row[], done: Generation[], stopped: ReadonlySet<Row> = new Set()): Row[] {
    return rows.filter((row) => {
      const { prompt, ids, maxTokens } = row;
      if (!stopped.has(row) && ids.length < maxTokens) return true;
      done[prompt] = { ids, finishReason: stopped.has(row) ? 'stop' : 'length' };
      return false;
    });
  }
}

function limitOf({ maxTokens }: BatchOptions, index: number): number {
  return typeof maxTokens === 'number' ? maxTokens : (maxTokens[index] ?? 0);
}
