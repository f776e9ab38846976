import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeSafetensors } from '@tunefleet/ml-formats';

/** SmolLM2-135M's config.json, as far as it changes the computation. */
export const SMOLLM2_135M = {
  architectures: ['LlamaForCausalLM'],
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
  tie_word_embeddings: true,
  hidden_act: 'silu',
  initializer_range: 0.02,
} as const;

/** Writes config.json and random weights of that shape. Speed does not depend on their values. */
export async function writeRandomModel(folder: string, layers: number = SMOLLM2_135M.num_hidden_layers): Promise<void> {
  const { hidden_size: C, intermediate_size: F, num_attention_heads: H, num_key_value_heads: K, head_dim: D, vocab_size: V } = SMOLLM2_135M;
  const block = (layer: number): [string, number[]][] => {
    const path = `model.layers.${layer}`;
    return [
      [`${path}.input_layernorm.weight`, [C]],
      [`${path}.self_attn.q_proj.weight`, [H * D, C]],
      [`${path}.self_attn.k_proj.weight`, [K * D, C]],
      [`${path}.self_attn.v_proj.weight`, [K * D, C]],
      [`${path}.self_attn.o_proj.weight`, [C, H * D]],
      [`${path}.post_attention_layernorm.weight`, [C]],
      [`${path}.mlp.gate_proj.weight`, [F, C]],
      [`${path}.mlp.up_proj.weight`, [F, C]],
      [`${path}.mlp.down_proj.weight`, [C, F]],
    ];
  };
  const shapes: [string, number[]][] = [
    ['model.embed_tokens.weight', [V, C]],
    ...Array.from({ length: layers }, (_, layer) => block(layer)).flat(),
    ['model.norm.weight', [C]],
  ];
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'config.json'), `${JSON.stringify({ ...SMOLLM2_135M, num_hidden_layers: layers }, null, 2)}\n`);
  let state = 1;
  const value = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 31 - 1) * 0.02 * Math.sqrt(3);
  };
  const declarations = shapes.map(([name, shape]) => ({ name, dtype: 'F32' as const, shape }));
  await writeSafetensors(join(folder, 'model.safetensors'), declarations, ({ name, shape }) => {
    const count = shape.reduce((product, size) => product * size, 1);
    const data = name.includes('norm') ? new Float32Array(count).fill(1) : Float32Array.from({ length: count }, value);
    return new Uint8Array(data.buffer);
  });
}
