import type { KeysValues, ModelHook, ProjectionGroup } from '@tunefleet/ml-nn';
import type { CacheSlots, FloatDType, Tensor } from '@tunefleet/ml-tensor';
import type { BlockPaths } from './module-sites';
import type { SequenceContext } from './sequence-tables';

/** Keys and values beyond those of the tokens at hand. */
export interface KeyValueStore {
  /**
   * Called once per block and pass.
   * @param k [B, K, T, D] of the tokens at hand, borrowed   @param v alike
   * @returns those of all tokens that are seen, borrowed by the block
   */
  append(layer: number, k: Tensor, v: Tensor): KeysValues;
  /**
   * Where a pass of one token per row would put keys and values, for whoever writes them there himself; null: `append` them.
   * @param size K heads of D channels each
   */
  slots?(layer: number, size: { readonly heads: number; readonly width: number; readonly dtype: FloatDType }): CacheSlots<Tensor> | null;
  /** Tracked tensors that a recorded block of this layer needs alive. */
  inputsOf?(layer: number): readonly Tensor[];
}

/** What one forward pass tells its blocks. */
export interface BlockContext {
  readonly rows: number;
  readonly sequence: SequenceContext;
  readonly adapter: ModelHook | null;
  readonly keysValues: KeyValueStore | null;
  /** Set for the last block: the rows of its output that anybody wants. After attention nothing else is computed. */
  readonly outputRows: Int32Array | null;
}

export interface DecoderBlock {
  readonly paths: BlockPaths;
  /** Its linear maps, in forward order. */
  readonly groups: readonly ProjectionGroup[];
  /** Index into `DecoderParts.kinds`. */
  readonly kind: number;
  /** @param x [B*T, C], borrowed   @returns [B*T, C], or the wanted rows of it, the caller's */
  run(x: Tensor, context: BlockContext): Tensor;
  /** The keys and values that attention makes of an input. @param x [B*T, C], borrowed   @returns [B, K, T, D], the caller's */
  keysValues(x: Tensor, context: BlockContext): KeysValues;
}
