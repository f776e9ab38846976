import type { ModelHook, ModuleSite, Norm, Projection, ProjectionGroup } from '@tunefleet/ml-nn';
import type { Device, FloatDType, Tensor } from '@tunefleet/ml-tensor';

/** Token ids of `rows` texts, row-major, `columns` a row; the first `lengths[row]` are the text, the rest is padding with any valid id. */
export interface EncoderBatch {
  readonly ids: Int32Array;
  readonly rows: number;
  readonly columns: number;
  readonly lengths: Int32Array;
  /** Which of two texts a token belongs to, 0 or 1; default: all the first. */
  readonly tokenTypes?: Int32Array;
}

export interface EncodeOptions {
  readonly adapter?: ModelHook | null;
  /** Training only: keep each block's input and compute the block again in the backward pass. */
  readonly recomputeBlocks?: boolean;
}

/** A model that reads texts as a whole, with frozen weights on one device. */
export interface Encoder extends Disposable {
  readonly modelType: string;
  readonly device: Device;
  /** Dtype of activations and products. */
  readonly computeDtype: FloatDType;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly layers: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly maxPositions: number;
  /** Classes its classifier tells apart; null: it has none. */
  readonly classes: number | null;
  /** Every linear map a tuner may adapt, in forward order; the classifier is not among them. */
  readonly projections: readonly Projection[];
  readonly projectionGroups: readonly ProjectionGroup[];
  /** [V, C] */
  readonly embeddings: Tensor;
  readonly embeddingScale: number;
  /** Modules whose output a tuner may change: none so far. */
  readonly modules: readonly ModuleSite[];
  readonly norms: readonly Norm[];
  /** Bytes of the weights on the device. */
  readonly weightBytes: number;
  /** @returns the last hidden states, [rows * columns, C], the caller's */
  encode(batch: EncoderBatch, options?: EncodeOptions): Tensor;
  /** Mean of a text's last hidden states: the usual sentence embedding. @returns [rows, C], the caller's */
  embed(batch: EncoderBatch, options?: EncodeOptions): Tensor;
  /** @returns logits [rows, classes], the caller's   @throws TunefleetError `invalid_input` when the model has no classifier */
  classify(batch: EncoderBatch, options?: EncodeOptions): Tensor;
}
