import { attention, mergeHeads, singleQueryAttention, type AttentionOptions, type Tensor } from '@tunefleet/ml-tensor';
import type { KeysValues } from '@tunefleet/ml-nn';
import type { SequenceContext } from './sequence-tables';

/** A block's attention as its mask and the place of its keys ask for it. @param q [B, H, T, D]   @returns [B*T, H*D] */
export function attend(q: Tensor, { k, v }: KeysValues, { mask, slotMask }: SequenceContext, options: AttentionOptions): Tensor {
  if (slotMask !== undefined) return singleQueryAttention(q, k, v, slotMask, options);
  return mergeHeads(attention(q, k, v, mask, options));
}
