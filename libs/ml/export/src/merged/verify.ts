import { describeCausalLm, loadCausalLm, type CausalLm, type WeightDtype } from '@tunefleet/ml-models';
import { headOf, type ModelHook } from '@tunefleet/ml-nn';
import { headLogits, type Device, type FloatDType } from '@tunefleet/ml-tensor';
import { loadAdapter } from '@tunefleet/ml-tuners';

/** Tokens compared; some of them far apart in the vocabulary. */
const TOKENS = 32;
/** Largest difference of a logit, as a share of the largest logit, by how the merged weights are stored. Half precision rounds every weight once. */
const TOLERANCE: Readonly<Record<WeightDtype, number>> = { F32: 1e-5, F16: 1e-2, BF16: 5e-2 };

/** For hooks, by what is computed in. */
const HOOK_TOLERANCE: Readonly<Record<FloatDType, number>> = { f32: 1e-5, bf16: 5e-2 };

export interface VerifiedMerge {
  readonly largestDifference: number;
  readonly largestLogit: number;
  /** Allowed difference. */
  readonly limit: number;
  readonly equal: boolean;
}

/** Compares logits of the merged folder with those of base and adapter, computed in f32, one model after the other on the device. */
export async function largestDifference(
  device: Device,
  { base, config, adapter, merged, mergedConfig, dtype }: { readonly base: string; readonly config: unknown; readonly adapter: string; readonly merged: string; readonly mergedConfig: unknown; readonly dtype: WeightDtype },
): Promise<VerifiedMerge> {
  const ids = idsFor(describeCausalLm(config));
  const wanted = await logits(device, { folder: base, config, adapter }, ids);
  const got = await logits(device, { folder: merged, config: mergedConfig, adapter: null }, ids);
  return compared(wanted, got, TOLERANCE[dtype]);
}

/** Compares what a loaded model computes with one hook and with another. */
export function compareHooks(model: CausalLm, wanted: ModelHook | null, got: ModelHook | null): VerifiedMerge {
  const ids = idsFor(model);
  return compared(logitsOf(model, ids, wanted), logitsOf(model, ids, got), HOOK_TOLERANCE[model.computeDtype]);
}

function compared(wanted: Float32Array, got: Float32Array, tolerance: number): VerifiedMerge {
  let largest = 0;
  let largestLogit = 0;
  for (const [index, value] of wanted.entries()) {
    const difference = Math.abs(value - (got[index] ?? NaN));
    if (!(difference <= largest)) largest = difference;
    largestLogit = Math.max(largestLogit, Math.abs(value));
  }
  const limit = tolerance * Math.max(1, largestLogit);
  return { largestDifference: largest, largestLogit, limit, equal: largest <= limit };
}

function idsFor({ vocabSize, maxPositions }: { readonly vocabSize: number; readonly maxPositions: number }): Int32Array {
  return Int32Array.from({ length: Math.min(TOKENS, maxPositions) }, (_, index) => (index * 7919 + 3) % vocabSize);
}

async function logits(device: Device, { folder, config, adapter }: { readonly folder: string; readonly config: unknown; readonly adapter: string | null }, ids: Int32Array): Promise<Float32Array> {
  using model = await loadCausalLm(device, { folder, config, computeDtype: 'f32' });
  if (adapter === null) return logitsOf(model, ids, null);
  const loaded = await loadAdapter(model, adapter);
  try {
    return logitsOf(model, ids, loaded.hook);
  } finally {
    loaded.dispose();
  }
}

/** [T, V] f32 */
function logitsOf(model: CausalLm, ids: Int32Array, hook: ModelHook | null): Float32Array {
  const { device } = model;
  return device.scope(() => device.readFloats(headLogits(model.forward({ ids, rows: 1, columns: ids.length }, { adapter: hook }), headOf(model, hook))));
}
