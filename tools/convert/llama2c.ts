import { mkdir, readFile } from 'node:fs/promises';
import { invariant } from '@tunefleet/foundation';
import { writeModelFolder } from '@tunefleet/ml-formats';
import { readLlama2cCheckpoint } from './llama2c-checkpoint';
import { tokenizerFromLlama2c } from './llama2c-tokenizer';

export interface Llama2cFiles {
  /** The checkpoint, e.g. `stories260K.bin`. */
  readonly checkpoint: string;
  /** The tokenizer, e.g. `tok512.bin`. */
  readonly tokenizer: string;
}

/** Writes a llama2.c model as a Hugging Face folder in float32. The folder is created. */
export async function convertLlama2c({ checkpoint, tokenizer }: Llama2cFiles, folder: string): Promise<void> {
  const { shape, tensors } = readLlama2cCheckpoint(await readFile(checkpoint));
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor.data]));
  await mkdir(folder, { recursive: true });
  await writeModelFolder(folder, {
    config: {
      architectures: ['LlamaForCausalLM'],
      model_type: 'llama',
      vocab_size: shape.vocabularySize,
      hidden_size: shape.hiddenSize,
      intermediate_size: shape.intermediateSize,
      num_hidden_layers: shape.layers,
      num_attention_heads: shape.heads,
      num_key_value_heads: shape.keyValueHeads,
      max_position_embeddings: shape.contextLength,
      rms_norm_eps: 1e-5,
      rope_theta: 10000,
      hidden_act: 'silu',
      tie_word_embeddings: shape.tiedEmbeddings,
      attention_bias: false,
      mlp_bias: false,
      bos_token_id: 1,
      eos_token_id: 2,
      torch_dtype: 'float32',
    },
    tensors,
    produce: ({ name }) => {
      const data = byName.get(name);
      invariant(data !== undefined, `no data for ${name}`);
      return data;
    },
    ...tokenizerFromLlama2c(await readFile(tokenizer), shape.vocabularySize, shape.contextLength),
    generationConfig: { bos_token_id: 1, eos_token_id: 2 },
  });
}
