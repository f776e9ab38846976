import type { TokenisedDataset } from '@tunefleet/ml-data';
import type { CausalLm } from '@tunefleet/ml-models';
import type { Stems } from '@tunefleet/ml-nn';
import type { Tensor } from '@tunefleet/ml-tensor';
import type { MicroBatch } from './batch-plan';
import { countLossTokens, labelled, type TrainingBatch } from './collate';

type HostStates = Float32Array | Uint16Array;

export interface StemCacheOptions {
  readonly model: CausalLm;
  readonly dataset: TokenisedDataset;
  /**
   * Examples that go through the blocks together, whoever of them is asked for: every example in one of them. What the blocks give an example depends in its last
   * bits on what else is in the pass, so the groups are fixed for a run.
   */
  readonly groups: readonly MicroBatch[];
  /** Lays a group out as the trainer does. */
  collate(group: MicroBatch): TrainingBatch;
  /** Places of the hidden states in use, see `Tuner.stemStates`. */
  readonly states: readonly number[];
}

/**
 * What enters a bypass, kept on the host: it depends on the input alone, so every example goes through the blocks once, however many epochs there are. Only of rows
 * that carry loss, since a bypass works on every row by itself. In the compute dtype, so nothing is lost.
 */
export class StemCache {
  /** By example [states, its loss rows, C]. */
  readonly #kept = new Map<number, HostStates>();
  readonly #groupOf = new Map<number, MicroBatch>();

  constructor(private readonly options: StemCacheOptions) {
    for (const group of options.groups) for (const example of group) this.#groupOf.set(example, group);
  }

  /** Groups that have to go through the blocks before `stemsOf` can answer. */
  missing({ examples }: TrainingBatch): MicroBatch[] {
    const groups = examples.filter((example) => !this.#kept.has(example)).map((example) => this.#groupOf.get(example) as MicroBatch);
    return [...new Set(groups)];
  }

  /** One pass through the blocks. */
  fill(group: MicroBatch): void {
    const { model, dataset, states } = this.options;
    const { device, hiddenSize: C } = model;
    const batch = this.options.collate(group);
    const counts = batch.examples.map((example) => countLossTokens(dataset.example(example)));
    if (batch.lossTokens === 0) {
      for (const example of batch.examples) this.#kept.set(example, new Float32Array());
      return;
    }
    device.scope(() => {
      const stems = model.stems(batch.tokens, states, { outputRows: labelled(batch.labels).rows });
      const arrays = states.map((state) => device.read(stems[state] as Tensor) as HostStates);
      let row = 0;
      for (const [index, example] of batch.examples.entries()) {
        const size = (counts[index] as number) * C;
        const kept = model.computeDtype === 'bf16' ? new Uint16Array(states.length * size) : new Float32Array(states.length * size);
        arrays.forEach((array, state) => kept.set(array.subarray(row, row + size), state * size));
        this.#kept.set(example, kept);
        row += size;
      }
    });
  }

  /** The rows that carry loss, in the order of the batch; of nothing that is missing. @returns tensors of the current scope */
  stemsOf({ examples }: TrainingBatch): Stems {
    const { device, hiddenSize: C, computeDtype, layers } = this.options.model;
    const parts = examples.map((example) => this.#kept.get(example) as HostStates);
    const size = parts.reduce((sum, { length }) => sum + length, 0) / this.options.states.length;
    const stems = new Array<Tensor | null>(layers + 1).fill(null);
    this.options.states.forEach((state, index) => {
      const all = computeDtype === 'bf16' ? new Uint16Array(size) : new Float32Array(size);
      let at = 0;
      for (const part of parts) {
        const each = part.length / this.options.states.length;
        all.set(part.subarray(index * each, (index + 1) * each), at);
        at += each;
      }
      stems[state] = device.tensor(all, [size / C, C], computeDtype);
    });
    return stems;
  }
}

/** Bytes that a cache of a whole dataset takes. @param states number of hidden states in use   @param width C */
export function stemCacheBytes(dataset: TokenisedDataset, states: number, width: number, dtype: 'f32' | 'bf16'): number {
  let rows = 0;
  for (let index = 0; index < dataset.length; index++) rows += countLossTokens(dataset.example(index));
  return rows * states * width * (dtype === 'bf16' ? 2 : 4);
}
