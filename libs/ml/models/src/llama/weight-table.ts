import type { LlamaConfig } from './spec';

/** A tensor the checkpoint must hold. */
export interface WeightDeclaration {
  readonly name: string;
  readonly shape: readonly number[];
}

export interface LlamaProjection {
  readonly path: string;
  readonly inSize: number;
  readonly outSize: number;
  readonly bias: boolean;
}

/** The seven linear maps of block `layer`, in forward order. */
export function blockProjections(config: LlamaConfig, layer: number): LlamaProjection[] {
  const { hidden_size: C, intermediate_size: F, head_dim: D, attention_bias: attentionBias, mlp_bias: mlpBias } = config;
  const [queries, keys] = [config.num_attention_heads * D, config.num_key_value_heads * D];
  const attention = (name: string, inSize: number, outSize: number) => ({ path: `model.layers.${layer}.self_attn.${name}`, inSize, outSize, bias: attentionBias });
  const mlp = (name: string, inSize: number, outSize: number) => ({ path: `model.layers.${layer}.mlp.${name}`, inSize, outSize, bias: mlpBias });
  return [
    attention('q_proj', C, queries),
    attention('k_proj', C, keys),
    attention('v_proj', C, keys),
    attention('o_proj', queries, C),
    mlp('gate_proj', C, F),
    mlp('up_proj', C, F),
    mlp('down_proj', F, C),
  ];
}

/** Every linear map a tuner may adapt, in forward order. */
export function llamaProjections(config: LlamaConfig): LlamaProjection[] {
  return Array.from({ length: config.num_hidden_layers }, (_, layer) => blockProjections(config, layer)).flat();
}

/** Every tensor of the checkpoint, under its Hugging Face name. */
export function llamaWeights(config: LlamaConfig): WeightDeclaration[] {
  const { hidden_size: C, vocab_size: V } = config;
  const norms = Array.from({ length: config.num_hidden_layers }, (_, layer) => [
    { name: `model.layers.${layer}.input_layernorm.weight`, shape: [C] },
    { name: `model.layers.${layer}.post_attention_layernorm.weight`, shape: [C] },
  ]).flat();
  const maps = llamaProjections(config).flatMap(({ path, inSize, outSize, bias }) => [
    { name: `${path}.weight`, shape: [outSize, inSize] },
    ...(bias ? [{ name: `${path}.bias`, shape: [outSize] }] : []),
  ]);
  return [
    { name: 'model.embed_tokens.weight', shape: [V, C] },
    ...norms,
    ...maps,
    { name: 'model.norm.weight', shape: [C] },
    ...(config.tie_word_embeddings ? [] : [{ name: 'lm_head.weight', shape: [V, C] }]),
  ];
}

/** Tensors that checkpoints carry without adding to the function: buffers of old Transformers versions, and a tied head stored twice. */
export function isRedundantWeight(config: LlamaConfig, name: string): boolean {
  return name.endsWith('.rotary_emb.inv_freq') || (config.tie_word_embeddings && name === 'lm_head.weight');
}
