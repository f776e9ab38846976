import type { ModelHook, ModuleSite, Norm, Projection, ProjectionGroup, Stems, TokenTables } from '@tunefleet/ml-nn';
import type { Device, FloatDType, OutputHead, Tensor } from '@tunefleet/ml-tensor';

/** Token ids of `rows` sequences of `columns` tokens each, row-major; rows are padded on the right with any valid id. */
export interface TokenBatch {
  readonly ids: Int32Array;
  readonly rows: number;
  readonly columns: number;
  /** Position of every token; default: its column, counted on from the cache's length. */
  readonly positions?: Int32Array;
  /** Packed examples: tokens see earlier tokens of the same number in their row only. Not together with a cache. */
  readonly segments?: Int32Array;
  /**
   * Several continuations of one beginning in the same row: tokens of branch 0 (the trunk, with all of the cache) are seen by every later token of their row, others by later
   * tokens of their own branch only. Needs `positions`; a cache is to be cut back afterwards. Not together with segments.
   */
  readonly branches?: Int32Array;
}

export interface ForwardOptions {
  readonly adapter?: ModelHook | null;
  /** Read and appended to. */
  readonly cache?: KeyValueCache | null;
  /** Indices into [rows * columns], ascending: only these hidden states are wanted. */
  readonly outputRows?: Int32Array | null;
  /** With a bypass only: what `stems` gave for the same batch, so that the blocks need not run. Borrowed. */
  readonly stems?: Stems | null;
  /**
   * What enters a block, as `stems` gave it for the same tokens, so that those before it need not run; after the last block (`layer` is their number) of the wanted
   * rows only. Not together with a cache. Borrowed.
   */
  readonly entering?: { readonly layer: number; readonly hidden: Tensor } | null | undefined;
  /** Training only: keep each block's input and compute the block again in the backward pass. */
  readonly recomputeBlocks?: boolean;
}

/** Keys and values of the tokens seen so far under one adapter, for every layer. Owned by whoever opened it. */
export interface KeyValueCache extends Disposable {
  readonly rows: number;
  /** Tokens held by row. Rows of different lengths go on by one token at a time. */
  readonly lengths: Int32Array;
  /** Of the longest row. */
  readonly length: number;
  /** Keeps the first tokens of every row, as many as it is told of all or of each, so that another continuation can follow. */
  truncate(lengths: number | Int32Array): void;
  /** Keeps these rows, in this order. */
  keepRows(rows: Int32Array): void;
}

/** How a model computes. bf16 weights with f32 arithmetic are cast as they are used: half the memory, exact where the weights were published in bf16. */
export interface Precision {
  /** Of activations and products. */
  readonly computeDtype: FloatDType;
  /** Matrices rest in it, unless they are quantised. */
  readonly weightDtype: FloatDType;
  /** Of the linear maps without the head; null: none, unless the checkpoint is stored so. */
  readonly quantisation?: Quantisation | null;
}

/** How linear maps are stored in 4 bits. @see Dettmers et al. 2023, arXiv:2305.14314 */
export interface Quantisation {
  readonly type: 'nf4' | 'fp4';
  /** Scales of blocks in 8 bits: 4.13 instead of 4.5 bits a weight. */
  readonly doubleQuant: boolean;
}

/** A decoder-only language model with frozen weights on one device. Every architecture gives this. */
export interface CausalLm extends Disposable {
  /** `model_type` of its config.json. */
  readonly modelType: string;
  readonly device: Device;
  /** Dtype of activations and products; matrices may rest in another one, see `Precision`. */
  readonly computeDtype: FloatDType;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  /** Blocks. */
  readonly layers: number;
  /** Heads of keys and values, and elements of each. */
  readonly keyValueHeads: number;
  readonly headDim: number;
  /** Longest sequence the model was made for. */
  readonly maxPositions: number;
  /** Every linear map a tuner may adapt, in forward order; the output head is not among them. */
  readonly projections: readonly Projection[];
  /** The same, as the model applies them. */
  readonly projectionGroups: readonly ProjectionGroup[];
  /** Modules whose output a tuner may change, in forward order. */
  readonly modules: readonly ModuleSite[];
  /** In forward order. */
  readonly norms: readonly Norm[];
  readonly tables: TokenTables;
  /** [V, C] the token embeddings, and the factor put on them. */
  readonly embeddings: Tensor;
  readonly embeddingScale: number;
  /** [positions, C], of models that have learned them. */
  readonly positions?: Tensor;
  /** [V, C]; logits = headLogits(forward(..), headOf(model, adapter)), as an adapter may change the head. */
  readonly head: OutputHead;
  /** Bytes of the weights on the device. */
  readonly weightBytes: number;
  /** @returns the last hidden states after the final norm, [rows * columns or outputRows, C] in the compute dtype, the caller's */
  forward(batch: TokenBatch, options?: ForwardOptions): Tensor;
  /** Runs the blocks without gradients. @param states which hidden states   @returns what a bypass starts from, the caller's */
  stems(batch: TokenBatch, states: readonly number[], options?: ForwardOptions): Stems;
  openCache(rows: number): KeyValueCache;
}
