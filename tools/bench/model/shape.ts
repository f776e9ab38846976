import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeSafetensors } from '@tunefleet/ml-formats';
import { checkpointTensors } from '@tunefleet/ml-models';

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
  await writeRandomWeights(folder, { ...SMOLLM2_135M, num_hidden_layers: layers });
}

/** The same for any config.json that we can run. */
export async function writeRandomWeights(folder: string, config: Readonly<Record<string, unknown>>): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'config.json'), `${JSON.stringify(config, null, 2)}\n`);
  let state = 1;
  const value = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 31 - 1) * 0.02 * Math.sqrt(3);
  };
  const declarations = checkpointTensors(config).map(({ name, shape }) => ({ name, dtype: 'F32' as const, shape }));
  await writeSafetensors(join(folder, 'model.safetensors'), declarations, ({ name, shape }) => {
    const count = shape.reduce((product, size) => product * size, 1);
    const data = name.includes('norm') ? new Float32Array(count).fill(1) : Float32Array.from({ length: count }, value);
    return new Uint8Array(data.buffer);
  });
}
