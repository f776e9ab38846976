import type { CausalLmDescription } from '@tunefleet/ml-models/specs';
import { specHalfOf, type TunerSpec } from './spec-registry';

export interface TrainingShape {
  readonly model: CausalLmDescription;
  readonly spec: TunerSpec;
  readonly computeDtype: 'f32' | 'bf16';
  /** Default: `computeDtype`. */
  readonly weightDtype?: 'f32' | 'bf16';
  /** Sequences per forward pass, and tokens of each. */
  readonly rows: number;
  readonly columns: number;
  readonly recomputeBlocks?: boolean;
}

/** Bytes of a training step at its highest, in parts, where device and host share their memory. The rest of a process (code, fragmentation) comes on top. */
export interface MemoryEstimate {
  readonly weightBytes: number;
  readonly adapterBytes: number;
  /** Two moments and the values on the host, the gradient there and on the device, f32. */
  readonly optimiserBytes: number;
  /** What the backward pass needs of the blocks, and what one block needs while it is computed. */
  readonly activationBytes: number;
  /** Of one chunk of labelled rows, with gradient. */
  readonly logitsBytes: number;
  readonly totalBytes: number;
}

/** Of the logits that exist at once, f32. */
const LOGITS_BYTES = 2 ** 27;
/** Of a weight with one f32 scale per block of 64, and with scales in 8 bits, a maximum per 256 of them. */
const BITS_QUANTISED = 4 + 32 / 64;
const BITS_DOUBLE_QUANT = 4 + 8 / 64 + 32 / (64 * 256);
/** Per weight of the one matrix that is dequantised: indices, code values, products with the scales, and their cast. */
const BYTES_DEQUANTISING = 2 + 4 + 4 + 4;
/** Keys up to which attention keeps its probabilities for the backward pass. */
const PROBABILITIES_KEPT_MAX = 256;

/** @throws TunefleetError `invalid_input` when the tuner does not fit the model */
export function estimateMemory(shape: TrainingShape): MemoryEstimate {
  const { model, spec, computeDtype, weightDtype = computeDtype } = shape;
  const parameters = parametersOf(spec, model);
  const quantisation = specHalfOf(spec).baseQuantisation?.(spec) ?? null;
  const mapElements = quantisation === null ? 0 : model.projections.reduce((sum, { inSize, outSize }) => sum + inSize * outSize, 0);
  const weightBytes = (model.parameterCount - mapElements) * elementBytes(weightDtype) + Math.ceil((mapElements * (quantisation?.doubleQuant ? BITS_DOUBLE_QUANT : BITS_QUANTISED)) / 8);
  const adapterBytes = parameters * 4;
  const optimiserBytes = parameters * 20;
  const activationBytes = activations(shape) + (quantisation === null ? 0 : dequantised(model));
  const logitsBytes = logits(shape);
  return { weightBytes, adapterBytes, optimiserBytes, activationBytes, logitsBytes, totalBytes: weightBytes + adapterBytes + optimiserBytes + activationBytes + logitsBytes };
}

/** Matching the tuner's patterns takes longer than all else here, and one specification is estimated for several shapes. */
const counted = new WeakMap<TunerSpec, { readonly model: CausalLmDescription; readonly parameters: number }>();

function parametersOf(spec: TunerSpec, model: CausalLmDescription): number {
  const known = counted.get(spec);
  if (known?.model === model) return known.parameters;
  const parameters = specHalfOf(spec).countParameters(spec, model);
  counted.set(spec, { model, parameters });
  return parameters;
}

/**
 * Kept per token and block: what the description says, and the probabilities of short rows; with recomputation the block's input only. Virtual tokens are keys of every
 * row, copied before its own, and pass through the blocks once, which is not computed again.
 */
function activations({ model, spec, computeDtype, rows, columns, recomputeBlocks = false }: TrainingShape): number {
  const { hiddenSize: C, intermediateSize: F, heads: H, layers, keptPerToken, softcaps, keyValueHeads, headDim } = model;
  const tokens = rows * columns;
  const size = elementBytes(computeDtype);
  const virtual = specHalfOf(spec).virtualTokens?.(spec) ?? 0;
  const keys = virtual + columns;
  const probabilities = keys <= PROBABILITIES_KEPT_MAX ? H * keys : 0;
  const perBlock = tokens * (keptPerToken + probabilities) * size;
  // Scores in f32, probabilities and their gradient; or the MLP's sigmoid, its product with gate and up, their gradients and what leads to them.
  const scores = rows * H * columns * keys * (2 * size + (softcaps.attention ? 16 : 8));
  const mlp = tokens * F * 8 * size;
  const half = specHalfOf(spec);
  const touched = half.stemStates ? 0 : layers - (half.untouchedBlocks?.(spec, model) ?? 0);
  const kept = recomputeBlocks ? touched * tokens * C * size + (touched > 0 ? perBlock : 0) : touched * perBlock;
  const tuner = tokens * (specHalfOf(spec).keptPerToken?.(spec, model) ?? 0) * size;
  const prefix = layers * virtual * (keptPerToken + rows * 2 * keyValueHeads * headDim) * size;
  return kept + tuner + prefix + Math.max(scores, mlp) + 3 * tokens * C * size;
}

/** The widest map, which is whole for the time of a product. */
function dequantised({ projections }: CausalLmDescription): number {
  return BYTES_DEQUANTISING * projections.reduce((most, { inSize, outSize }) => Math.max(most, inSize * outSize), 0);
}

function logits({ model, computeDtype, rows, columns }: TrainingShape): number {
  const count = Math.min(rows * columns, Math.floor(LOGITS_BYTES / (4 * model.vocabSize))) * model.vocabSize;
  return count * ((model.softcaps.logits ? 16 : 8) + (computeDtype === 'bf16' ? 2 : 0)) + rows * columns * model.hiddenSize * 2 * elementBytes(computeDtype);
}

function elementBytes(dtype: 'f32' | 'bf16'): number {
  return dtype === 'bf16' ? 2 : 4;
}
