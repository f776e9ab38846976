import type { ModuleSite, NormSite, TokenTables } from '@tunefleet/ml-nn';

/** What can be said about a causal language model from its configuration alone. Sizes in elements. */
export interface CausalLmDescription {
  readonly modelType: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  /** Longest sequence the model was made for. */
  readonly maxPositions: number;
  /** A shared input and output embedding counts once. */
  readonly parameterCount: number;
  /** What makes the inside of the MLP. */
  readonly activation: 'swiglu' | 'geglu' | 'gelu';
  /** Elements per token and block that the backward pass keeps, attention's probabilities apart. */
  readonly keptPerToken: { readonly attention: number; readonly mlp: number };
  /** Where a tanh cap needs room for its slope in the backward pass. */
  readonly softcaps: { readonly attention: boolean; readonly logits: boolean };
  readonly tables: TokenTables;
  /** Modules whose output a tuner may change, in forward order. */
  readonly modules: readonly ModuleSite[];
  /** In forward order. */
  readonly norms: readonly NormSite[];
  /** Every linear map a tuner may adapt, in forward order. */
  readonly projections: readonly { readonly path: string; readonly inSize: number; readonly outSize: number; readonly fanInFanOut?: true; readonly biased?: true }[];
}

/** The TensorFlow-free half of an architecture. */
export interface ArchitectureSpec {
  /** @throws TunefleetError `incompatible_artifact` when `config` is not one of this architecture */
  describe(config: unknown): CausalLmDescription;
}
