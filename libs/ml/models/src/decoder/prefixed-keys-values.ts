import type { KeysValues } from '@tunefleet/ml-nn';
import { precede, type Tensor } from '@tunefleet/ml-tensor';
import type { KeyValueStore } from './block';

/** Virtual tokens before every row, and before what a cache holds of it. */
export class PrefixedKeysValues implements KeyValueStore {
  /** @param prefix by layer, borrowed */
  constructor(
    private readonly prefix: readonly KeysValues[],
    private readonly cache: KeyValueStore | null,
  ) {}

  append(layer: number, k: Tensor, v: Tensor): KeysValues {
    const own = this.cache?.append(layer, k, v) ?? { k, v };
    const before = this.prefix[layer] as KeysValues;
    return { k: precede(own.k, before.k), v: precede(own.v, before.v) };
  }

  inputsOf(layer: number): readonly Tensor[] {
    const { k, v } = this.prefix[layer] as KeysValues;
    return [k, v];
  }
}
