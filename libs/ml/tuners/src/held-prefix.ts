import type { KeysValues, ModelHook, PrefixHook, PrefixModel } from '@tunefleet/ml-nn';
import type { Device } from '@tunefleet/ml-tensor';

/** Sets of active adapters whose keys and values are held at the same time. */
const HELD_MAX = 4;

/**
 * For inference: the keys and values of virtual tokens are computed once and held, not again for every decoded token. What else is active changes them, so they
 * are held by the whole hook of the pass: use one hook for one set of adapters.
 */
export class HeldPrefix implements PrefixHook, Disposable {
  readonly length: number;
  readonly behindPositions?: true;
  private readonly held = new Map<ModelHook, readonly KeysValues[]>();

  /** @param prefix whose values do not change any more */
  constructor(
    private readonly device: Device,
    private readonly prefix: PrefixHook,
  ) {
    this.length = prefix.length;
    if (prefix.behindPositions) this.behindPositions = true;
  }

  keysValues(model: PrefixModel): readonly KeysValues[] {
    // Something else is being trained, and what it changes in here has a gradient.
    if (this.device.tape) return this.prefix.keysValues(model);
    const known = this.held.get(model.active);
    if (known) this.held.delete(model.active);
    const keysValues = known ?? this.device.detached(() => this.prefix.keysValues(model));
    this.held.set(model.active, keysValues);
    for (const [active, oldest] of this.held) {
      if (this.held.size <= HELD_MAX) break;
      this.held.delete(active);
      free(oldest);
    }
    return keysValues;
  }

  [Symbol.dispose](): void {
    for (const keysValues of this.held.values()) free(keysValues);
    this.held.clear();
  }
}

function free(keysValues: readonly KeysValues[]): void {
  for (const { k, v } of keysValues) {
    k.dispose();
    v.dispose();
  }
}
