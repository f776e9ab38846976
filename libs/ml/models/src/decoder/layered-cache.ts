import { invariant } from '@tunefleet/foundation';
import type { Device, Tensor } from '@tunefleet/ml-tensor';
import type { KeyValueCache } from '../causal-lm';
import type { KeyValueStore } from './block';

/** Keys and values per layer as [rows, K, length, D] tensors that grow by concatenation. */
export class LayeredCache implements KeyValueCache, KeyValueStore {
  private readonly keys: (Tensor | null)[];
  private readonly values: (Tensor | null)[];
  private held = 0;
  private closed = false;

  constructor(
    private readonly device: Device,
    readonly rows: number,
    layers: number,
  ) {
    this.keys = new Array<Tensor | null>(layers).fill(null);
    this.values = new Array<Tensor | null>(layers).fill(null);
  }

  get length(): number {
    return this.held;
  }

  /**
   * Adds new tokens' keys and values to one layer. `length` stays until `commit`.
   * @param k [rows, K, T, D]   @param v alike
   * @returns those of all tokens, borrowed until the layer changes again
   */
  append(layer: number, k: Tensor, v: Tensor): { readonly k: Tensor; readonly v: Tensor } {
    invariant(!this.closed, 'the cache is closed');
    return { k: this.grow(this.keys, layer, k), v: this.grow(this.values, layer, v) };
  }

  /** Makes the tokens that every layer has got count. */
  commit(tokens: number): void {
    this.held += tokens;
  }

  truncate(length: number): void {
    invariant(length >= 0 && length <= this.held, `a cache of ${this.held} tokens cannot be cut to ${length}`);
    this.held = length;
    for (const store of [this.keys, this.values]) {
      store.forEach((tensor, layer) => {
        if (tensor && tensor.dim(2) > length) this.replace(store, layer, length === 0 ? null : this.head(tensor, length));
      });
    }
  }

  [Symbol.dispose](): void {
    if (this.closed) return;
    this.closed = true;
    for (const store of [this.keys, this.values]) store.forEach((_, layer) => this.replace(store, layer, null));
  }

  private grow(store: (Tensor | null)[], layer: number, added: Tensor): Tensor {
    const before = store[layer];
    const p = this.device.primitives;
    const all = this.device.detached(() => (before ? p.concat([before, added], 2) : p.reshape(added, added.shape)));
    this.replace(store, layer, all);
    return all;
  }

  private head(tensor: Tensor, length: number): Tensor {
    const [rows = 0, heads = 0, , width = 0] = tensor.shape;
    return this.device.detached(() => this.device.primitives.slice(tensor, [0, 0, 0, 0], [rows, heads, length, width]));
  }

  private replace(store: (Tensor | null)[], layer: number, next: Tensor | null): void {
    store[layer]?.dispose();
    store[layer] = next;
  }
}
