import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { encodeSafetensors, type TensorInMemory } from '@tunefleet/ml-formats';

/**
 * A random Llama small enough that a training step takes milliseconds, as a Hugging Face model folder: config, weights, tokenizer, chat template.
 * The same options give the same bytes.
 */
export interface TinyModelOptions {
  readonly seed?: number;
  readonly hiddenSize?: number;
  readonly layers?: number;
  readonly heads?: number;
  readonly keyValueHeads?: number;
  readonly tieWordEmbeddings?: boolean;
  readonly maxPositions?: number;
}

/** Frequent pairs, so that tokens are not all single bytes. `Ġ` is the byte-level form of a space. */
const MERGES: readonly (readonly [string, string])[] = [
  ['Ġ', 't'],
  ['h', 'e'],
  ['i', 'n'],
  ['r', 'e'],
  ['o', 'n'],
  ['Ġt', 'he'],
  ['Ġ', 'a'],
  ['in', 'g'],
  ['e', 'r'],
  ['Ġ', 's'],
  ['a', 'm'],
  ['s', 'p'],
  ['sp', 'am'],
];

export const TINY_SPECIAL_TOKENS = ['<|endoftext|>', '<|im_start|>', '<|im_end|>'] as const;

export const TINY_CHAT_TEMPLATE =
  "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/** Writes the folder (created if absent) and returns its path. */
export async function writeTinyModel(dir: string, options: TinyModelOptions = {}): Promise<string> {
  const vocabulary = tinyVocabulary();
  const config = tinyConfig(Object.keys(vocabulary).length, options);
  await mkdir(dir, { recursive: true });
  await Promise.all([
    writeJson(dir, 'config.json', config),
    writeJson(dir, 'tokenizer.json', tinyTokenizer(vocabulary)),
    writeJson(dir, 'tokenizer_config.json', {
      tokenizer_class: 'PreTrainedTokenizerFast',
      bos_token: '<|im_start|>',
      eos_token: '<|im_end|>',
      pad_token: '<|im_end|>',
      unk_token: '<|endoftext|>',
      model_max_length: config.max_position_embeddings,
      clean_up_tokenization_spaces: false,
      chat_template: TINY_CHAT_TEMPLATE,
    }),
    writeFile(join(dir, 'model.safetensors'), encodeSafetensors(tinyWeights(config, options.seed ?? 1))),
  ]);
  return dir;
}

type TinyConfig = ReturnType<typeof tinyConfig>;

function tinyConfig(vocabularySize: number, options: TinyModelOptions) {
  const hiddenSize = options.hiddenSize ?? 32;
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    vocab_size: vocabularySize,
    hidden_size: hiddenSize,
    intermediate_size: hiddenSize * 2,
    num_hidden_layers: options.layers ?? 2,
    num_attention_heads: options.heads ?? 4,
    num_key_value_heads: options.keyValueHeads ?? 2,
    max_position_embeddings: options.maxPositions ?? 512,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: options.tieWordEmbeddings ?? true,
    hidden_act: 'silu',
    attention_bias: false,
    mlp_bias: false,
    bos_token_id: 1,
    eos_token_id: 2,
    pad_token_id: 2,
    torch_dtype: 'float32',
  };
}

function tinyWeights(config: TinyConfig, seed: number): TensorInMemory[] {
  const random = gaussian(seed);
  const width = config.hidden_size;
  const headDim = width / config.num_attention_heads;
  const tensors: TensorInMemory[] = [];
  const add = (name: string, shape: readonly number[], value: () => number): void => {
    const elements = shape.reduce((product, size) => product * size, 1);
    const data = Float32Array.from({ length: elements }, value);
    tensors.push({ name, dtype: 'F32', shape, data: new Uint8Array(data.buffer) });
  };
  const matrix = (name: string, out: number, inner: number): void => add(name, [out, inner], () => random() / Math.sqrt(inner));
  const norm = (name: string): void => add(name, [width], () => 1 + 0.1 * random());
  add('model.embed_tokens.weight', [config.vocab_size, width], () => random() * 0.5);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const prefix = `model.layers.${layer}`;
    norm(`${prefix}.input_layernorm.weight`);
    matrix(`${prefix}.self_attn.q_proj.weight`, config.num_attention_heads * headDim, width);
    matrix(`${prefix}.self_attn.k_proj.weight`, config.num_key_value_heads * headDim, width);
    matrix(`${prefix}.self_attn.v_proj.weight`, config.num_key_value_heads * headDim, width);
    matrix(`${prefix}.self_attn.o_proj.weight`, width, config.num_attention_heads * headDim);
    norm(`${prefix}.post_attention_layernorm.weight`);
    matrix(`${prefix}.mlp.gate_proj.weight`, config.intermediate_size, width);
    matrix(`${prefix}.mlp.up_proj.weight`, config.intermediate_size, width);
    matrix(`${prefix}.mlp.down_proj.weight`, width, config.intermediate_size);
  }
  norm('model.norm.weight');
  if (!config.tie_word_embeddings) matrix('lm_head.weight', config.vocab_size, width);
  return tensors;
}

/** Special tokens first, then the 256 bytes in byte-level spelling, then the merges. */
function tinyVocabulary(): Record<string, number> {
  const pieces = [...TINY_SPECIAL_TOKENS, ...byteLevelAlphabet(), ...MERGES.map(([left, right]) => left + right)];
  return Object.fromEntries(pieces.map((piece, id) => [piece, id]));
}

function tinyTokenizer(vocabulary: Record<string, number>): object {
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: TINY_SPECIAL_TOKENS.map((content, id) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true })),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: vocabulary,
      merges: MERGES,
    },
  };
}

/**
 * GPT-2's spelling of bytes: printable ones as themselves, the others as characters from U+0100 on.
 * @see openai/gpt-2 `src/encoder.py`
 */
function byteLevelAlphabet(): string[] {
  const printable = (byte: number): boolean => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
}

/** Normal numbers by Box-Muller over a 32-bit generator (mulberry32): good enough for test weights. */
function gaussian(seed: number): () => number {
  let state = seed >>> 0;
  const uniform = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

function writeJson(dir: string, name: string, value: unknown): Promise<void> {
  return writeFile(join(dir, name), `${JSON.stringify(value, null, 2)}\n`);
}
