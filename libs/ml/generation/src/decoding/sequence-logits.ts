import type { CausalLm } from '@tunefleet/ml-models';
import { headOf, type ModelHook } from '@tunefleet/ml-nn';
import { headLogits } from '@tunefleet/ml-tensor';

/**
 * What the model expects after every token of one sequence, computed at once and without a cache, as in training.
 * @returns [T, V] float32, row-major
 */
export function sequenceLogits(model: CausalLm, ids: Int32Array, adapter: ModelHook | null = null): Float32Array {
  const { device } = model;
  return device.scope(() => device.readFloats(headLogits(model.forward({ ids, rows: 1, columns: ids.length }, { adapter }), headOf(model, adapter))));
}
