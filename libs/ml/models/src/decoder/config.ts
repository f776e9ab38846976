/** Rotary positions of some layers. */
export interface RopeSettings {
  readonly theta: number;
  readonly scaling: RopeScaling | null;
}

export type RopeScaling =
  /** Every frequency is divided by `factor`. */
  | { readonly rope_type: 'linear'; readonly factor: number }
  /** Llama 3.1 and later: low frequencies are slowed down by `factor`, high ones left alone, a ramp in between. */
  | {
      readonly rope_type: 'llama3';
      readonly factor: number;
      readonly low_freq_factor: number;
      readonly high_freq_factor: number;
      readonly original_max_position_embeddings: number;
    };

export interface LayerSettings {
  readonly rope: RopeSettings;
  /** Tokens a token sees, itself included; null: all before it. */
  readonly window: number | null;
}

/**
 * In what decoders with RMS norms, rotary positions, grouped key/value heads and gated MLPs differ. Every model type of this family translates its config.json
 * into it. Sizes in elements.
 */
export interface DecoderConfig {
  readonly modelType: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly maxPositions: number;
  readonly normEpsilon: number;
  readonly tiedHead: boolean;
  /** One per block. */
  readonly layers: readonly LayerSettings[];
  /** Which linear maps have a bias. */
  readonly bias: { readonly qkv: boolean; readonly output: boolean; readonly mlp: boolean };
  /** The checkpoint, and so the adapters, have `qkv_proj` and `gate_up_proj` instead of three and two maps. */
  readonly fusedMaps: boolean;
  /** Queries and keys are normed head by head before they are rotated. */
  readonly queryKeyNorm: boolean;
  /** What attention and MLP give is normed, too, before it is added to the stream. */
  readonly outputNorms: boolean;
  /** Norm weights are stored less one and multiply in f32. */
  readonly centredNorms: boolean;
  readonly activation: 'silu' | 'gelu_tanh';
  /** Factor of the embeddings; 1: none. */
  readonly embeddingScale: number;
  /** Factor of the attention scores. */
  readonly attentionScale: number;
  /** Cap of attention scores, and of logits. */
  readonly attentionSoftcap: number | null;
  readonly logitSoftcap: number | null;
}
