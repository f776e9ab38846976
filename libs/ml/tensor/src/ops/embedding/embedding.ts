import { invariant } from '@tunefleet/foundation';
import type { FloatDType } from '../../dtype';
import type { Tensor } from '../../tensor';

/**
 * Rows of a frozen table; nothing trainable lies below, so no gradient.
 * @param table [V, C]   @param ids token ids in 0 .. V-1
 * @returns [ids.length, C] in `dtype`
 */
export function embedding(table: Tensor, ids: Int32Array, dtype: FloatDType): Tensor {
  const device = table.device;
  const vocabulary = table.dim(0);
  for (const id of ids) invariant(id >= 0 && id < vocabulary, `token ${id} is outside the vocabulary of ${vocabulary}`);
  using indices = device.tensor(Int32Array.from(ids), [ids.length], 'i32');
  using rows = device.primitives.gather(table, indices);
  return device.primitives.cast(rows, dtype);
}
