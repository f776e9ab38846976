/**
 * Hugging Face tensor names -> GGUF names, for all decoders.
 * @see https://github.com/ggml-org/llama.cpp `gguf-py/gguf/tensor_mapping.py`
 */
const GLOBAL: Readonly<Record<string, string>> = {
  'model.embed_tokens': 'token_embd',
  'model.norm': 'output_norm',
  lm_head: 'output',
  'transformer.wte': 'token_embd',
  'transformer.wpe': 'position_embd',
  'transformer.ln_f': 'output_norm',
};

const BLOCK: Readonly<Record<string, string>> = {
  input_layernorm: 'attn_norm',
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.qkv_proj': 'attn_qkv',
  'self_attn.o_proj': 'attn_output',
  'self_attn.q_norm': 'attn_q_norm',
  'self_attn.k_norm': 'attn_k_norm',
  post_attention_layernorm: 'ffn_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.gate_up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
  ln_1: 'attn_norm',
  ln_2: 'ffn_norm',
  'attn.c_attn': 'attn_qkv',
  'attn.c_proj': 'attn_output',
  'mlp.c_fc': 'ffn_up',
  'mlp.c_proj': 'ffn_down',
};

/** Where a block norms what its halves give, too, the name of the second norm means another one. */
const OUTPUT_NORMS: Readonly<Record<string, string>> = {
  post_attention_layernorm: 'post_attention_norm',
  pre_feedforward_layernorm: 'ffn_norm',
  post_feedforward_layernorm: 'post_ffw_norm',
};

/** @param outputNorms the blocks norm the outputs of attention and MLP (Gemma)   @returns undefined for a tensor without a place in GGUF */
export function ggufNameOf(name: string, outputNorms: boolean): string | undefined {
  const [, path = '', suffix = ''] = /^(.+)\.(weight|bias)$/.exec(name) ?? [];
  if (Object.hasOwn(GLOBAL, path)) return `${GLOBAL[path]}.${suffix}`;
  const [, layer, part = ''] = /^(?:model\.layers|transformer\.h)\.(\d+)\.(.+)$/.exec(path) ?? [];
  const table = outputNorms && Object.hasOwn(OUTPUT_NORMS, part) ? OUTPUT_NORMS : BLOCK;
  return layer !== undefined && Object.hasOwn(table, part) ? `blk.${layer}.${table[part]}.${suffix}` : undefined;
}
