import type { TokenisedDataset } from '@tunefleet/ml-data';
import type { CausalLm } from '@tunefleet/ml-models';
import type { Stems } from '@tunefleet/ml-nn';
import type { Tensor } from '@tunefleet/ml-tensor';
import type { MicroBatch } from './batch-plan';
import { countLossTokens, labelled, type TrainingBatch } from './collate';
import type { HostStates, StemRoom, StemStore } from './stem-store';

/** Which hidden states of an example are in use. */
export interface StemUse {
  /** Places in `Stems`. */
  readonly states: readonly number[];
  /** `learned`: of tokens that carry loss, where all that follows works on every token by itself; else of all. */
  readonly rows: 'learned' | 'all';
}

export interface StemCacheOptions extends StemUse {
  readonly model: CausalLm;
  readonly dataset: TokenisedDataset;
  /**
   * Examples that go through the blocks together, whoever of them is asked for: every example in one of them. What the blocks give an example depends in its last
   * bits on what else is in the pass, so the groups are fixed for a run.
   */
  readonly groups: readonly MicroBatch[];
  /** Lays a group out as the trainer does. */
  collate(group: MicroBatch): TrainingBatch;
  readonly store: StemStore;
}

/** Examples kept together, and where. */
interface KeptGroup {
  readonly members: MicroBatch;
  readonly room: StemRoom;
}

/**
 * What the first blocks give, kept off the device: it depends on the input alone, so an example goes through them once, however many epochs there are. In the
 * compute dtype, so nothing is lost. Examples for which the store had no room go through them in every epoch.
 */
export class StemCache {
  readonly #groupOf = new Map<number, KeptGroup>();

  constructor(private readonly options: StemCacheOptions) {
    const { groups, store, dataset, model, states, rows } = options;
    for (const members of groups) {
      const bytes = members.reduce((sum, example) => sum + stemBytes(rowsOf(dataset, example, rows), states.length, model.hiddenSize, model.computeDtype), 0);
      const room = store.reserve(bytes);
      if (room) for (const example of members) this.#groupOf.set(example, { members, room });
    }
  }

  /** Groups that have to go through the blocks before `stemsOf` can answer. */
  missing({ examples }: TrainingBatch): MicroBatch[] {
    const groups = examples.flatMap((example) => {
      const group = this.#groupOf.get(example);
      return group && !group.room.has(example) ? [group.members] : [];
    });
    return [...new Set(groups)];
  }

  /** One pass through the blocks. */
  fill(group: MicroBatch): void {
    for (const [example, states] of this.#statesOf(group)) this.#groupOf.get(example)?.room.put(example, states);
  }

  /**
   * Of a batch of which nothing is missing: the rows that carry loss, in the order of the batch; or all rows, where padding has zeros.
   * @returns tensors of the current scope; null when nothing of the batch is kept
   */
  stemsOf(batch: TrainingBatch): Stems | null {
    const loose = batch.given.filter((example) => !this.#groupOf.has(example));
    if (loose.length === batch.given.length) return null;
    const again = loose.length === 0 ? new Map<number, HostStates>() : this.#statesOf(loose);
    const parts = batch.examples.map((example) => again.get(example) ?? (this.#groupOf.get(example) as KeptGroup).room.get(example));
    const { model, states } = this.options;
    const { device, hiddenSize: C, computeDtype, layers } = model;
    const places = this.#placesIn(batch);
    const count = this.options.rows === 'all' ? batch.labels.length : places.reduce((sum, { length }) => sum + length, 0);
    const stems = new Array<Tensor | null>(layers + 1).fill(null);
    states.forEach((state, index) => {
      const all = computeDtype === 'bf16' ? new Uint16Array(count * C) : new Float32Array(count * C);
      // The last first, so that a shared prefix is that of its row's first example.
      for (let at = parts.length - 1; at >= 0; at--) spread(parts[at] as HostStates, index, places[at] as Int32Array, all, C);
      stems[state] = device.tensor(all, [count, C], computeDtype);
    });
    return stems;
  }

  /** By example [states, its rows, C]. */
  #statesOf(group: MicroBatch): Map<number, HostStates> {
    const { model, states, rows } = this.options;
    const { device, hiddenSize: C, computeDtype } = model;
    const batch = this.options.collate(group);
    const places = this.#placesIn(batch);
    const empty = (): HostStates => (computeDtype === 'bf16' ? new Uint16Array() : new Float32Array());
    if (rows === 'learned' && batch.lossTokens === 0) return new Map(batch.examples.map((example) => [example, empty()]));
    return device.scope(() => {
      const stems = model.stems(batch.tokens, states, rows === 'all' ? {} : { outputRows: labelled(batch.labels).rows });
      const arrays = states.map((state) => device.read(stems[state] as Tensor) as HostStates);
      return new Map(
        batch.examples.map((example, at) => {
          const own = places[at] as Int32Array;
          const size = own.length * C;
          const kept = computeDtype === 'bf16' ? new Uint16Array(states.length * size) : new Float32Array(states.length * size);
          arrays.forEach((array, state) => own.forEach((row, index) => kept.set(array.subarray(row * C, (row + 1) * C), state * size + index * C)));
          return [example, kept];
        }),
      );
    });
  }

  /** Per example of the batch, which rows of a stem are its own. */
  #placesIn({ places, lossTokensOf }: TrainingBatch): readonly Int32Array[] {
    if (this.options.rows === 'all') return places;
    let row = 0;
    return lossTokensOf.map((count) => Int32Array.from({ length: count }, () => row++));
  }
}

/** @param part [states, rows, C] of an example   @param all [N, C], written at `rows` */
function spread(part: HostStates, state: number, rows: Int32Array, all: HostStates, width: number): void {
  const begin = state * rows.length * width;
  rows.forEach((row, index) => all.set(part.subarray(begin + index * width, begin + (index + 1) * width), row * width));
}

/** Bytes that a cache of a whole dataset takes. @param width C */
export function stemCacheBytes(dataset: TokenisedDataset, { states, rows }: { readonly states: number; readonly rows: StemUse['rows'] }, width: number, dtype: 'f32' | 'bf16'): number {
  let bytes = 0;
  for (let index = 0; index < dataset.length; index++) bytes += stemBytes(rowsOf(dataset, index, rows), states, width, dtype);
  return bytes;
}

function rowsOf(dataset: TokenisedDataset, example: number, rows: StemUse['rows']): number {
  return rows === 'all' ? (dataset.lengths[example] as number) : countLossTokens(dataset.example(example));
}

function stemBytes(rows: number, states: number, width: number, dtype: 'f32' | 'bf16'): number {
  return rows * states * width * (dtype === 'bf16' ? 2 : 4);
}
