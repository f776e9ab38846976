import { z } from 'zod';

/** `rope_scaling` of Llama 3.1 and later: low frequencies are slowed down by `factor`, high ones left alone, a ramp in between. */
export const llama3RopeScalingSchema = z.object({
  rope_type: z.literal('llama3'),
  factor: z.number().min(1).max(1024),
  low_freq_factor: z.number().positive().max(1024),
  high_freq_factor: z.number().positive().max(1024),
  original_max_position_embeddings: z.int().min(1).max(1 << 24),
});
export type Llama3RopeScaling = z.infer<typeof llama3RopeScalingSchema>;

/**
 * Fields of a Hugging Face `config.json` with `"model_type": "llama"` that change the computation. Spelling is the file's.
 * Unknown fields are dropped; a field that asks for something we do not compute is refused with its value.
 */
export const llamaConfigSchema = z
  .preprocess(
    normaliseRope,
    z.object({
      model_type: z.literal('llama'),
      vocab_size: z.int().min(1).max(1 << 24),
      hidden_size: z.int().min(1).max(1 << 17),
      intermediate_size: z.int().min(1).max(1 << 19),
      num_hidden_layers: z.int().min(1).max(1024),
      num_attention_heads: z.int().min(1).max(1024),
      num_key_value_heads: z.int().min(1).max(1024).nullish(),
      head_dim: z.int().min(2).max(1024).nullish(),
      max_position_embeddings: z.int().min(1).max(1 << 24).default(2048),
      rms_norm_eps: z.number().positive().max(1).default(1e-6),
      rope_theta: z.number().positive().default(10000),
      rope_scaling: llama3RopeScalingSchema.nullish(),
      tie_word_embeddings: z.boolean().default(false),
      attention_bias: z.boolean().default(false),
      mlp_bias: z.boolean().default(false),
      hidden_act: z.literal('silu', { error: 'only the "silu" activation is supported' }).default('silu'),
      bos_token_id: z.int().nullish(),
      eos_token_id: z.union([z.int(), z.array(z.int())]).nullish(),
      pad_token_id: z.int().nullish(),
    }),
  )
  .transform((raw) => ({
    ...raw,
    num_key_value_heads: raw.num_key_value_heads ?? raw.num_attention_heads,
    head_dim: raw.head_dim ?? raw.hidden_size / raw.num_attention_heads,
    rope_scaling: raw.rope_scaling ?? null,
  }))
  .superRefine((config, context) => {
    const issue = (message: string) => context.addIssue({ code: 'custom', message });
    if (!Number.isInteger(config.head_dim) || config.head_dim % 2 !== 0) {
      issue(`head_dim must be an even whole number, got ${config.head_dim} (hidden_size ${config.hidden_size}, num_attention_heads ${config.num_attention_heads})`);
    }
    if (config.num_attention_heads % config.num_key_value_heads !== 0) {
      issue(`num_attention_heads (${config.num_attention_heads}) must be a multiple of num_key_value_heads (${config.num_key_value_heads})`);
    }
  });
export type LlamaConfig = z.infer<typeof llamaConfigSchema>;

/**
 * Brings the spellings of `rope_scaling` met in the wild to one: Transformers 5 writes `rope_parameters` with `rope_theta` inside,
 * older files use `type` for `rope_type`, and `default` means no scaling.
 */
function normaliseRope(value: unknown): unknown {
  if (value === null || typeof value !== 'object') return value;
  const config: Record<string, unknown> = { ...value };
  const given = config['rope_scaling'] ?? config['rope_parameters'];
  if (given === null || typeof given !== 'object') return config;
  const { type, rope_theta: theta, ...rope }: Record<string, unknown> = { ...given };
  if (theta !== undefined && config['rope_theta'] === undefined) config['rope_theta'] = theta;
  const ropeType = rope['rope_type'] ?? type ?? 'default';
  config['rope_scaling'] = ropeType === 'default' ? null : { ...rope, rope_type: ropeType };
  return config;
}
