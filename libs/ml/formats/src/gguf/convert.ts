import { z } from 'zod';
import { f32ArrayToBf16 } from '../numeric/half';
import { interleavedToHalfRows } from '../numeric/rope-rows';
import { writeModelFolder } from '../hf-folder/model-folder';
import type { TensorDeclaration } from '../safetensors';
import { GgufFile, damagedGguf } from './file';
import { llamaNameFromGguf } from './llama-names';
import { tokenizerFromGguf } from './tokenizer';

const llamaMetadataSchema = z.object({
  'general.architecture': z.literal('llama', { error: 'only the "llama" architecture is supported' }),
  'llama.block_count': z.int().min(1).max(1024),
  'llama.context_length': z.int().min(1).max(1 << 24),
  'llama.embedding_length': z.int().min(1).max(1 << 17),
  'llama.feed_forward_length': z.int().min(1).max(1 << 19),
  'llama.attention.head_count': z.int().min(1).max(1024),
  'llama.attention.head_count_kv': z.int().min(1).max(1024).optional(),
  'llama.attention.key_length': z.int().min(2).max(1024).optional(),
  'llama.attention.layer_norm_rms_epsilon': z.number().positive(),
  'llama.rope.freq_base': z.number().positive().default(10000),
  'llama.rope.scaling.type': z.enum(['none', 'linear'], { error: 'RoPE scaling is not supported in GGUF files' }).optional(),
  'llama.rope.scaling.factor': z.literal(1, { error: 'RoPE scaling is not supported in GGUF files' }).optional(),
});

export interface ConvertOptions {
  /**
   * How weights are stored. Unpacked 4-bit weights fit bfloat16 with an error of at most 2^-9 of their size, far below the quantisation
   * step, and half the bytes; `F32` keeps the unpacked values exactly.
   */
  readonly dtype: 'BF16' | 'F32';
  /** Called after each tensor with the share done, 0..1. */
  readonly onProgress?: (fraction: number) => void;
}

/**
 * Turns a Llama GGUF file into a Hugging Face model folder: config.json, model.safetensors, tokenizer.json, tokenizer_config.json,
 * generation_config.json. Holds one tensor in memory at a time and lets other work run in between.
 * @param folder must exist
 * @throws TunefleetError `incompatible_artifact` when the file is damaged or of another architecture
 */
export async function convertGgufToFolder(path: string, folder: string, { dtype, onProgress }: ConvertOptions): Promise<void> {
  using file = GgufFile.open(path);
  const parsed = llamaMetadataSchema.safeParse(Object.fromEntries(file.metadata));
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw damagedGguf(path, `cannot be used: ${issue?.path.join('.')}: ${issue?.message}`);
  }
  const metadata = parsed.data;
  const heads = metadata['llama.attention.head_count'];
  const keyValueHeads = metadata['llama.attention.head_count_kv'] ?? heads;
  const headDim = metadata['llama.attention.key_length'] ?? metadata['llama.embedding_length'] / heads;
  const sources = new Map<string, string>();
  const declarations: TensorDeclaration[] = [];
  for (const [name, { shape }] of file.tensors) {
    const target = llamaNameFromGguf(name);
    if (target === undefined) throw damagedGguf(path, `has tensor "${name}", which a Llama model does not have`);
    if (target === null) continue;
    sources.set(target, name);
    declarations.push({ name: target, dtype, shape });
  }
  const embedding = file.tensors.get('token_embd.weight');
  if (embedding === undefined) throw damagedGguf(path, 'has no token embedding');
  const { tokenizer, tokenizerConfig, specialIds } = tokenizerFromGguf(file.metadata, metadata['llama.context_length']);
  let done = 0;
  const produce = async ({ name }: TensorDeclaration): Promise<Uint8Array> => {
    await new Promise((resolve) => setImmediate(resolve));
    const values = unpermute(name, file.readFloat32(sources.get(name) as string));
    onProgress?.(++done / declarations.length);
    const packed = dtype === 'BF16' ? f32ArrayToBf16(values) : values;
    return new Uint8Array(packed.buffer, packed.byteOffset, packed.byteLength);
  };
  const unpermute = (name: string, values: Float32Array): Float32Array => {
    if (name.endsWith('q_proj.weight')) return interleavedToHalfRows(values, heads, headDim);
    return name.endsWith('k_proj.weight') ? interleavedToHalfRows(values, keyValueHeads, headDim) : values;
  };
  await writeModelFolder(folder, {
    config: {
      architectures: ['LlamaForCausalLM'],
      attention_bias: false,
      attention_dropout: 0,
      bos_token_id: specialIds.bos,
      eos_token_id: specialIds.eos,
      pad_token_id: specialIds.pad,
      head_dim: headDim,
      hidden_act: 'silu',
      hidden_size: metadata['llama.embedding_length'],
      initializer_range: 0.02,
      intermediate_size: metadata['llama.feed_forward_length'],
      max_position_embeddings: metadata['llama.context_length'],
      mlp_bias: false,
      model_type: 'llama',
      num_attention_heads: heads,
      num_hidden_layers: metadata['llama.block_count'],
      num_key_value_heads: keyValueHeads,
      rms_norm_eps: shortestFloat(metadata['llama.attention.layer_norm_rms_epsilon']),
      rope_scaling: null,
      rope_theta: shortestFloat(metadata['llama.rope.freq_base']),
      tie_word_embeddings: !file.tensors.has('output.weight'),
      torch_dtype: dtype === 'BF16' ? 'bfloat16' : 'float32',
      use_cache: true,
      vocab_size: embedding.shape[0],
    },
    tensors: declarations,
    produce,
    tokenizer,
    tokenizerConfig,
    generationConfig: { bos_token_id: specialIds.bos, eos_token_id: specialIds.eos, pad_token_id: specialIds.pad },
  });
}

/** The decimal that was meant: GGUF stores 1e-5 as the float32 9.999999747378752e-06. */
function shortestFloat(value: number): number {
  const short = Number(value.toPrecision(7));
  return Math.fround(short) === Math.fround(value) ? short : value;
}
