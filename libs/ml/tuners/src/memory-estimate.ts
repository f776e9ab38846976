import type { CausalLmDescription } from '@tunefleet/ml-models/specs';
import { causalBlocks, keepsProbabilities, keysIn, logitRowsAtOnce, scoredPairs } from '@tunefleet/ml-tensor/specs';
import { specHalfOf, type TunerSpec } from './spec-registry';
import type { TunerSpecHalf } from './tuner-spec';

export interface TrainingShape {
  readonly model: CausalLmDescription;
  readonly spec: TunerSpec;
  readonly computeDtype: 'f32' | 'bf16';
  /** Default: `computeDtype`. */
  readonly weightDtype?: 'f32' | 'bf16';
  /** Sequences per forward pass, and tokens of each. */
  readonly rows: number;
  readonly columns: number;
  /** Tokens that carry loss; default: all but the first of every row. */
  readonly labelled?: number;
  readonly recomputeBlocks?: boolean;
}

/**
 * Bytes of a training step at its highest, in parts. A formula for whoever has no engine: within some 15 % of what an engine counts for the same step, see docs/operate/capacity.md.
 * The rest of a process (code, fragmentation) comes on top.
 */
export interface MemoryEstimate {
  readonly weightBytes: number;
  /** Values on the device, and what a pass makes of them. */
  readonly adapterBytes: number;
  /** Gradients on the device, at the peak. */
  readonly gradientBytes: number;
  /** What the backward pass needs of the blocks, and what one block needs while it is computed, at the peak. */
  readonly activationBytes: number;
  /** Of one chunk of labelled rows, with gradient, at the peak. */
  readonly logitsBytes: number;
  /** The parts so far. */
  readonly deviceBytes: number;
  /** On the host: values, two moments, gradient of a step and of a pass, f32. */
  readonly optimiserBytes: number;
  /** Where device and host share their memory. */
  readonly totalBytes: number;
}

/** What is held at a point of a step beyond weights and values. */
interface Moment {
  readonly gradientBytes: number;
  readonly activationBytes: number;
  readonly logitsBytes: number;
}

/** Of a weight with one f32 scale per block of 64, and with scales in 8 bits, a maximum per 256 of them. */
const BITS_QUANTISED = 4 + 32 / 64;
const BITS_DOUBLE_QUANT = 4 + 8 / 64 + 32 / (64 * 256);
/** Per weight of the one matrix that is dequantised: indices, code values, products with the scales, and their cast. */
const BYTES_DEQUANTISING = 2 + 4 + 4 + 4;
/**
 * Bytes at once per token and element of the inside of the MLP while its activation goes backwards, beyond what is kept: values computed again, gradients, and the
 * intermediate results of both, of which those in f32 are there in bf16, too.
 */
const MLP_BACKWARD = { swiglu: { f32: 32, bf16: 18 }, geglu: { f32: 44, bf16: 38 }, gelu: { f32: 32, bf16: 32 } } as const;
/** Elements at once while the map behind it does: values computed again, and gradients by its input. */
const MLP_OUTPUT_BACKWARD = 6;
/** In the forward pass, with what is to be kept. */
const MLP_FORWARD = { swiglu: { f32: 16, bf16: 16 }, geglu: { f32: 24, bf16: 20 }, gelu: { f32: 20, bf16: 18 } } as const;
/** Bytes of parameters up to which they are sent and read as one array, which is faster, but holds them twice on the device for a moment. */
export const JOINED_BYTES_MAX = 2 ** 26;

/** @throws TunefleetError `invalid_input` when the tuner does not fit the model */
export function estimateMemory(shape: TrainingShape): MemoryEstimate {
  const { model, spec, computeDtype, weightDtype = computeDtype } = shape;
  const half = specHalfOf(spec);
  const parameters = parametersOf(spec, model);
  const quantisation = half.baseQuantisation?.(spec) ?? null;
  const mapElements = quantisation === null ? 0 : model.projections.reduce((sum, { inSize, outSize }) => sum + inSize * outSize, 0);
  const weightBytes = (model.parameterCount - mapElements) * elementBytes(weightDtype) + Math.ceil((mapElements * (quantisation?.doubleQuant ? BITS_DOUBLE_QUANT : BITS_QUANTISED)) / 8);
  const trains = tablesOf(spec, model);
  const adapterBytes = parameters * 4 + (parameters - tableElements(trains, model)) * (half.boundCopies ?? 0) * elementBytes(computeDtype);
  const { gradientBytes, activationBytes, logitsBytes } = momentsOf(shape, parameters, trains).reduce((most, moment) => (sumOf(moment) > sumOf(most) ? moment : most));
  const deviceBytes = weightBytes + adapterBytes + gradientBytes + activationBytes + logitsBytes;
  const optimiserBytes = parameters * 20;
  return { weightBytes, adapterBytes, gradientBytes, activationBytes, logitsBytes, deviceBytes, optimiserBytes, totalBytes: deviceBytes + optimiserBytes };
}

function sumOf({ gradientBytes, activationBytes, logitsBytes }: Moment): number {
  return gradientBytes + activationBytes + logitsBytes;
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

/** The points of a step at which memory may be highest. */
function momentsOf(shape: TrainingShape, parameters: number, trains: TrainedTables): readonly Moment[] {
  const { model, spec, computeDtype, weightDtype = computeDtype, rows, columns, labelled = rows * (columns - 1), recomputeBlocks = false } = shape;
  const { hiddenSize: C, vocabSize: V, layers } = model;
  const half = specHalfOf(spec);
  const size = elementBytes(computeDtype);
  const tokens = rows * columns;
  const blocks = blocksOf(shape);
  const touched = half.stemStates ? 0 : layers - (half.untouchedBlocks?.(spec, model) ?? 0);
  const [full, last] = [blocks.kept(tokens), blocks.kept(labelled)];
  const tuner = tokens * (half.keptPerToken?.(spec, model) ?? 0) * size;
  // A branch beside the blocks is not computed again.
  const [inBlock, beside] = touched > 0 ? [tuner / touched, 0] : [0, tuner];
  const keptBy = (count: number): number => (recomputeBlocks ? count * tokens * C * size : count * (full + inBlock));
  const all = beside + blocks.always + (touched === 0 ? 0 : recomputeBlocks ? keptBy(touched) : keptBy(touched - 1) + last + inBlock);
  const table = 4 * V * C;
  const headGradient = trains.head ? table : 0;
  const states = 3 * labelled * C * size + tokens * C * size;
  const moments: Moment[] = [
    { gradientBytes: 0, activationBytes: all + blocks.forward - (touched > 0 && !recomputeBlocks ? last : 0), logitsBytes: 0 },
    { gradientBytes: 0, activationBytes: all + states, logitsBytes: logits(shape, trains.head) },
    { gradientBytes: 2 * headGradient, activationBytes: all + states, logitsBytes: 0 },
    // All gradients, and of the embedding the rows and tables that it is summed from.
    { gradientBytes: 4 * parameters * (4 * parameters > JOINED_BYTES_MAX ? 1 : 2) + (trains.embedding ? (trains.head && model.tables.tied ? 2 : 1) * table : 0), activationBytes: (trains.embedding ? 5 : 1) * tokens * C * 4, logitsBytes: 0 },
  ];
  if (touched === 0) return moments;
  // Gradients of the blocks come one after the other, while what is kept goes.
  const inBlocks = 4 * (parameters - tableElements(trains, model));
  const perBlock = inBlocks / touched;
  const before = headGradient + perBlock;
  const own = recomputeBlocks ? full + inBlock : 0;
  moments.push({ gradientBytes: before, activationBytes: blocks.always + beside + (recomputeBlocks ? keptBy(touched) + last + inBlock : all) + blocks.backward(labelled), logitsBytes: 0 });
  if (touched > 1) {
    moments.push({ gradientBytes: before + perBlock, activationBytes: blocks.always + beside + keptBy(touched - 1) + own + blocks.backward(tokens), logitsBytes: 0 });
    moments.push({ gradientBytes: headGradient + inBlocks, activationBytes: blocks.always + beside + keptBy(1) + own + blocks.backward(tokens), logitsBytes: 0 });
  }
  if (weightDtype === computeDtype) return moments;
  // Weights of another dtype are cast for every product.
  return moments.map((moment) => (moment.logitsBytes > 0 ? moment : { ...moment, activationBytes: moment.activationBytes + size * widest(model) }));
}

interface Blocks {
  /** Of one block, whose MLP works on `rows` tokens. */
  kept(rows: number): number;
  /** While a block goes backwards. */
  backward(rows: number): number;
  /** While a block goes forwards, with what it is to keep. */
  readonly forward: number;
  /** Masks; keys and values of virtual tokens. */
  readonly always: number;
}

function blocksOf({ model, spec, computeDtype, rows, columns }: TrainingShape): Blocks {
  const { hiddenSize: C, intermediateSize: F, heads: H, headDim: D, keyValueHeads: K, layers, keptPerToken, softcaps, activation } = model;
  const size = elementBytes(computeDtype);
  const tokens = rows * columns;
  const half = specHalfOf(spec);
  const virtual = half.virtualTokens?.(spec) ?? 0;
  const cuts = causalBlocks(columns, virtual + columns);
  const pairs = scoredPairs(cuts);
  const keeps = keepsProbabilities(cuts, columns);
  const largest = Math.max(...cuts.map(({ from, to, keys }) => (to - from) * keysIn(keys)));
  // Probabilities and their gradient, three times; scores in f32 where they are computed again or bent.
  const scores = rows * H * largest * (3 * size + (softcaps.attention ? 16 : keeps ? 0 : 8));
  const dequantising = half.baseQuantisation === undefined ? 0 : BYTES_DEQUANTISING * widest(model);
  return {
    kept: (of) => tokens * keptPerToken.attention * size + of * keptPerToken.mlp * size + (keeps ? rows * H * pairs * size : 0),
    backward: (of) => Math.max(of * F * MLP_BACKWARD[activation][computeDtype], of * F * size * (MLP_OUTPUT_BACKWARD + (half.inputCopies?.(spec) ?? 0)), scores + 6 * tokens * H * D * size, dequantising + of * F * 3 * size) + 3 * tokens * C * size,
    forward: Math.max(tokens * F * MLP_FORWARD[activation][computeDtype], rows * H * largest * 8 + 4 * tokens * H * D * size, dequantising) + 4 * tokens * C * size,
    always: 4 * pairs + layers * virtual * (keptPerToken.attention + keptPerToken.mlp + rows * 2 * K * D) * size,
  };
}

type TrainedTables = ReturnType<NonNullable<TunerSpecHalf<TunerSpec>['trainedTables']>>;

function tablesOf(spec: TunerSpec, model: CausalLmDescription): TrainedTables {
  return specHalfOf(spec).trainedTables?.(spec, model) ?? { embedding: false, head: false };
}

/** Elements of the token tables that are trained. */
function tableElements({ embedding, head }: TrainedTables, { vocabSize, hiddenSize, tables }: CausalLmDescription): number {
  return (tables.tied && embedding && head ? 1 : Number(embedding) + Number(head)) * vocabSize * hiddenSize;
}

/** Elements of the widest map. */
function widest({ projections }: CausalLmDescription): number {
  return projections.reduce((most, { inSize, outSize }) => Math.max(most, inSize * outSize), 0);
}

/** Logits and their gradient in f32; a trained head keeps its product for its own backward pass, and has a gradient. */
function logits({ model, computeDtype, weightDtype = computeDtype, rows, columns, labelled = rows * (columns - 1) }: TrainingShape, trained: boolean): number {
  const { vocabSize: V, hiddenSize: C, softcaps } = model;
  const atOnce = logitRowsAtOnce(Math.max(1, labelled), V);
  const bent = softcaps.logits ? 16 : 8;
  // A head of another dtype is cast before there are gradients.
  if (!trained) return Math.max(atOnce * V * bent, weightDtype === computeDtype ? 0 : atOnce * V * 4 + elementBytes(computeDtype) * V * C);
  const sums = atOnce < labelled ? 2 : 1;
  if (computeDtype === 'f32') return atOnce * V * (softcaps.logits ? 20 : 8) + sums * 4 * V * C;
  return Math.max(atOnce * V * (bent + 2) + (sums - 1) * 4 * V * C + 2 * V * C, atOnce * V * 4 + (sums * 4 + 4) * V * C);
}

function elementBytes(dtype: 'f32' | 'bf16'): number {
  return dtype === 'bf16' ? 2 : 4;
}
