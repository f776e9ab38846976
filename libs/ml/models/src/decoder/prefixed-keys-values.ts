import type { KeysValues } from '@tunefleet/ml-nn';
import { precede, type Tensor } from '@tunefleet/ml-tensor';
import type { KeyValueStore } from './block';

/** Virtual tokens before every row, without a cache. */
export class PrefixedKeysValues implements KeyValueStore {
  /** @param prefix by layer, borrowed */
  constructor(private readonly prefix: readonly KeysValues[]) {}

  append(layer: number, k: Tensor, v: Tensor): KeysValues {
    const before = this.prefix[layer] as KeysValues;
    return { k: precede(k, before.k), v: precede(v, before.v) };
  }

  inputsOf(layer: number): readonly Tensor[] {
    const { k, v } = this.prefix[layer] as KeysValues;
    return [k, v];
  }
}
