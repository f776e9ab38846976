/** GGUF tensor names of the Llama family -> Hugging Face names. */
const GLOBAL: Readonly<Record<string, string>> = {
  'token_embd.weight': 'model.embed_tokens.weight',
  'output_norm.weight': 'model.norm.weight',
  'output.weight': 'lm_head.weight',
};

const BLOCK: Readonly<Record<string, string>> = {
  'attn_norm.weight': 'input_layernorm.weight',
  'ffn_norm.weight': 'post_attention_layernorm.weight',
  'attn_q.weight': 'self_attn.q_proj.weight',
  'attn_k.weight': 'self_attn.k_proj.weight',
  'attn_v.weight': 'self_attn.v_proj.weight',
  'attn_output.weight': 'self_attn.o_proj.weight',
  'ffn_gate.weight': 'mlp.gate_proj.weight',
  'ffn_up.weight': 'mlp.up_proj.weight',
  'ffn_down.weight': 'mlp.down_proj.weight',
};

/** Tensors that carry no weights: precomputed RoPE tables. */
const IGNORED = /^(rope_freqs\.weight|blk\.\d+\.attn_rot_embd)$/;

/** @returns undefined for a name the Llama family does not have, `null` for one to leave out */
export function llamaNameFromGguf(name: string): string | null | undefined {
  if (IGNORED.test(name)) return null;
  const match = /^blk\.(\d{1,4})\.(.+)$/.exec(name);
  if (match === null) return Object.hasOwn(GLOBAL, name) ? GLOBAL[name] : undefined;
  const part = match[2] as string;
  return Object.hasOwn(BLOCK, part) ? `model.layers.${match[1]}.${BLOCK[part]}` : undefined;
}
