import { TunefleetError } from '@tunefleet/foundation';
import type { CausalLm, KeyValueCache, TokenBatch } from '@tunefleet/ml-models';
import { headOf, type ModelHook } from '@tunefleet/ml-nn';
import { headLogits, type Tensor } from '@tunefleet/ml-tensor';
import { paddedColumns, type LabelTree } from './label-tree';

/** Rows of logits at a time: 128 x 49152 f32 are 25 MB. */
const CHUNK_ROWS = 128;

/** One token whose probability is wanted. */
interface Target {
  readonly row: number;
  readonly label: number;
  /** Index into the batch, or into the hidden states, of the token before it. */
  readonly source: number;
  readonly token: number;
}

/**
 * Log-likelihoods of labels under a model with one adapter (or none). Rows are fed in batches, each row's labels as branches of its prompt, and the tokens
 * that all rows begin with are fed once: per row little more than its own text is computed. Only positions that a label is read from go through the head.
 */
export class LabelScorer implements Disposable {
  /** By number of rows; each holds the prefix and nothing else between calls. */
  readonly #caches = new Map<number, KeyValueCache>();
  /** Tokens fed so far, without padding. */
  tokensFed = 0;

  /** @param prefix `sharedPrefix` of all trees to come */
  constructor(
    private readonly model: CausalLm,
    private readonly adapter: ModelHook | null,
    private readonly prefix: Int32Array,
  ) {}

  /**
   * @param trees a group of `planBatches`
   * @returns [trees][labels] nats, summed over the label's tokens
   * @throws TunefleetError `numerical` when a score is not finite
   */
  score(trees: readonly LabelTree[]): number[][] {
    const { batch, targets } = this.#layOut(trees);
    const cache = this.#cacheOf(trees.length);
    const sources = Int32Array.from(new Set(targets.map(({ source }) => source))).sort();
    using hidden = this.model.forward(batch, { adapter: this.adapter, cache, outputRows: sources });
    cache?.truncate(this.prefix.length);
    const place = new Map(Array.from(sources, (source, index) => [source, index]));
    const losses = this.#lossesOf(hidden, targets.map((target) => ({ ...target, source: place.get(target.source) as number })));
    const scores = trees.map(({ labels }) => labels.map(() => 0));
    targets.forEach(({ row, label }, index) => {
      const ofRow = scores[row] as number[];
      ofRow[label] = (ofRow[label] as number) - (losses[index] as number);
    });
    if (!scores.flat().every(Number.isFinite)) throw new TunefleetError('numerical', 'a label has no finite score; the weights or the adapter hold non-finite numbers');
    return scores;
  }

  [Symbol.dispose](): void {
    for (const cache of this.#caches.values()) cache[Symbol.dispose]();
    this.#caches.clear();
  }

  #cacheOf(rows: number): KeyValueCache | null {
    if (this.prefix.length === 0) return null;
    const known = this.#caches.get(rows);
    if (known !== undefined) return known;
    const cache = this.model.openCache(rows);
    this.#caches.set(rows, cache);
    const ids = Int32Array.from({ length: rows * this.prefix.length }, (_, index) => this.prefix[index % this.prefix.length] as number);
    this.model.forward({ ids, rows, columns: this.prefix.length }, { adapter: this.adapter, cache }).dispose();
    this.tokensFed += ids.length;
    return cache;
  }

  /** Every row as its trunk behind the prefix, then its labels' branches one after the other; padded on the right. */
  #layOut(trees: readonly LabelTree[]): { readonly batch: TokenBatch; readonly targets: readonly Target[] } {
    const columns = paddedColumns(trees, this.prefix.length);
    const ids = new Int32Array(trees.length * columns);
    const positions = new Int32Array(ids.length);
    const branches = new Int32Array(ids.length);
    const targets: Target[] = [];
    for (const [row, { trunk, labels }] of trees.entries()) {
      let next = row * columns;
      const place = (token: number, position: number, branch: number): void => {
        ids[next] = token;
        positions[next] = position;
        branches[next] = branch;
        next++;
      };
      const trunkStart = next - this.prefix.length;
      for (let position = this.prefix.length; position < trunk.length; position++) place(trunk[position] as number, position, 0);
      for (const [label, { tokens, answerStart }] of labels.entries()) {
        const branchStart = next - trunk.length;
        tokens.subarray(0, -1).forEach((token, index) => place(token, trunk.length + index, label + 1));
        for (let position = answerStart; position < trunk.length + tokens.length; position++) {
          const token = (position < trunk.length ? trunk[position] : tokens[position - trunk.length]) as number;
          targets.push({ row, label, source: (position - 1 < trunk.length ? trunkStart : branchStart) + position - 1, token });
        }
      }
      this.tokensFed += next - row * columns;
    }
    return { batch: { ids, rows: trees.length, columns, positions, branches }, targets };
  }

  /** -log p of every target. */
  #lossesOf(hidden: Tensor, targets: readonly Target[]): Float32Array {
    const { device } = this.model;
    const head = headOf(this.model, this.adapter);
    const p = device.primitives;
    const losses = new Float32Array(targets.length);
    for (let begin = 0; begin < targets.length; begin += CHUNK_ROWS) {
      const chunk = targets.slice(begin, begin + CHUNK_ROWS);
      const values = device.scope(() => {
        const states = p.gather(hidden, device.tensor(Int32Array.from(chunk, ({ source }) => source), [chunk.length], 'i32')); // [n, C]
        const logits = headLogits(states, head); // [n, V]
        const [loss] = p.softmaxCrossEntropy(logits, device.tensor(Int32Array.from(chunk, ({ token }) => token), [chunk.length], 'i32'));
        return device.readFloats(loss);
      });
      losses.set(values, begin);
    }
    return losses;
  }
}
