import type { CausalLmDescription } from '@tunefleet/ml-models/specs';
import type { FloatDType } from '@tunefleet/ml-tensor';
import type { Batching } from './settings';

export interface StepShape {
  readonly computeDtype: FloatDType;
  /** Tokens of the longest row, padded. */
  readonly columns: number;
  readonly trainableParameters: number;
}

/** Logits are made for so many rows at a time, and exist about three times: as computed, as gradient, in between. */
const LOGIT_ROWS = 256;
const LOGIT_COPIES = 3;
/** Values, two moments and the gradient on the host; values, gradients and their joined form on the device. */
const PARAMETER_COPIES = 8;
const F32_BYTES = 4;

/**
 * Highest need of a training step above the weights, in bytes: what the tape keeps, the largest temporaries beside it, and the optimiser.
 * Kept per token and block: two norm inputs, the three distinct inputs of the projections of width C, queries, keys, values, the attention's output, and
 * three times the MLP's width.
 */
export function stepMemoryBytes(model: CausalLmDescription, { computeDtype, columns, trainableParameters }: StepShape, { microBatchSize, recomputeBlocks }: Batching): number {
  const width = computeDtype === 'bf16' ? 2 : F32_BYTES;
  const tokens = microBatchSize * columns;
  const { hiddenSize: C, intermediateSize: F, heads: H, keyValueHeads: K, headDim: D, layers } = model;
  const block = tokens * (5 * C + 2 * H * D + 2 * K * D + 3 * F) * width;
  const kept = recomputeBlocks ? layers * tokens * C * width + block : layers * block;
  const attention = 3 * microBatchSize * H * columns * columns * F32_BYTES;
  const mlp = 4 * tokens * F * F32_BYTES;
  const logits = LOGIT_COPIES * Math.min(tokens, LOGIT_ROWS) * model.vocabSize * F32_BYTES;
  return kept + Math.max(attention, mlp, logits) + PARAMETER_COPIES * trainableParameters * F32_BYTES;
}
