/**
 * How GGUF lays out each architecture.
 * @see https://github.com/ggml-org/llama.cpp `convert_hf_to_gguf.py`
 */
import { halfToInterleavedRows, type GgufField } from '@tunefleet/ml-formats';
import { decoderFamily, modelTypeOf, parseGpt2, type DecoderConfig } from '@tunefleet/ml-models';

export interface GgufLayout {
  /** `general.architecture` */
  readonly architecture: string;
  readonly metadata: ReadonlyMap<string, GgufField>;
  readonly outputNorms: boolean;
  /** Factors of the rotary frequencies, where the architecture has a tensor for them. */
  readonly ropeFactors: Float32Array | null;
  /** What readers may compute otherwise. */
  readonly notices: readonly string[];
  /** A tensor of the checkpoint, by its path, as GGUF has it. */
  turn(path: string, values: Float32Array, shape: readonly number[]): { readonly values: Float32Array; readonly shape: readonly number[] };
  /** B of a LoRA on a map, [out, R]: its rows lie as those of the map's weight. */
  turnOutputs(path: string, b: Float32Array): Float32Array;
}

const ARCHITECTURES = { llama: 'llama', mistral: 'llama', qwen2: 'qwen2', qwen3: 'qwen3', phi3: 'phi3', gemma2: 'gemma2', gemma3_text: 'gemma3' } as const;

export function ggufLayout(config: unknown): GgufLayout {
  const type = modelTypeOf(config);
  return type === 'gpt2' ? gpt2Layout(config) : gatedLayout(ARCHITECTURES[type], decoderFamily[type](config));
}

function gpt2Layout(config: unknown): GgufLayout {
  const { hiddenSize, intermediateSize, layers, heads, maxPositions, normEpsilon, attentionScale } = parseGpt2(config);
  const usual = (hiddenSize / heads) ** -0.5;
  const metadata = fieldsOf('gpt2', {
    block_count: u32(layers),
    context_length: u32(maxPositions),
    embedding_length: u32(hiddenSize),
    feed_forward_length: u32(intermediateSize),
    'attention.head_count': u32(heads),
    'attention.layer_norm_epsilon': f32(normEpsilon),
  });
  const isTurned = (path: string): boolean => /\.c_(attn|proj|fc)\.weight$/.test(path);
  return {
    architecture: 'gpt2',
    metadata,
    outputNorms: false,
    ropeFactors: null,
    notices: Array.from({ length: layers }, (_, layer) => attentionScale(layer)).some((scale) => scale !== usual) ? ['attention scores have a scale of their own, which GGUF cannot say for GPT-2'] : [],
    turn: (path, values, shape) => (isTurned(path) ? { values: transposed(values, shape[0] ?? 0, shape[1] ?? 0), shape: [...shape].reverse() } : { values, shape }),
    turnOutputs: (_path, b) => b,
  };
}

function gatedLayout(architecture: string, config: DecoderConfig): GgufLayout {
  const { headDim: D, heads: H, keyValueHeads: K, layers, normEpsilon } = config;
  const windows = layers.map(({ window }) => window);
  const windowed = layers.find(({ window }) => window !== null);
  const whole = layers.find(({ window }) => window === null) ?? layers[0];
  const rope = whole?.rope;
  const local = windowed?.rope;
  const hasWindows = ['gemma2', 'gemma3', 'phi3'].includes(architecture);
  const narrowest = windows.reduce<number>((least, window) => Math.min(least, window ?? Infinity), Infinity);
  const contextLength = hasWindows ? config.maxPositions : Math.min(config.maxPositions, narrowest);
  const scaling = rope?.scaling ?? null;
  const metadata = fieldsOf(architecture, {
    block_count: u32(layers.length),
    context_length: u32(contextLength),
    embedding_length: u32(config.hiddenSize),
    feed_forward_length: u32(config.intermediateSize),
    vocab_size: u32(config.vocabSize),
    'attention.head_count': u32(H),
    'attention.head_count_kv': u32(K),
    'attention.key_length': u32(D),
    'attention.value_length': u32(D),
    'attention.layer_norm_rms_epsilon': f32(normEpsilon),
    'rope.dimension_count': u32(D),
    'rope.freq_base': f32(rope?.theta ?? 10000),
    ...(architecture === 'gemma3' && local ? { 'rope.freq_base_swa': f32(local.theta) } : {}),
    ...(scaling?.rope_type === 'linear' ? { 'rope.scaling.type': { type: 'string', value: 'linear' }, 'rope.scaling.factor': f32(scaling.factor) } : {}),
    ...(hasWindows && windowed ? { 'attention.sliding_window': u32(narrowest) } : {}),
    ...(config.attentionSoftcap === null ? {} : { attn_logit_softcapping: f32(config.attentionSoftcap) }),
    ...(config.logitSoftcap === null ? {} : { final_logit_softcapping: f32(config.logitSoftcap) }),
  });
  // llama.cpp rotates neighbouring channels in this one, halves in the others.
  const headsOf = (path: string): number => (architecture !== 'llama' ? 0 : path.includes('.q_proj') ? H : path.includes('.k_proj') ? K : 0);
  return {
    architecture,
    metadata,
    outputNorms: config.outputNorms,
    ropeFactors: scaling?.rope_type === 'llama3' ? llama3Factors(rope?.theta ?? 10000, D, scaling) : null,
    notices: noticesOf(architecture, config, contextLength),
    turn(path, values, shape) {
      if (config.centredNorms && /norm\.weight$/.test(path)) return { values: values.map((value) => value + 1), shape };
      const heads = headsOf(path);
      return { values: heads > 0 ? halfToInterleavedRows(values, heads, D) : values, shape };
    },
    turnOutputs(path, b) {
      const heads = headsOf(`${path}.weight`);
      return heads > 0 ? halfToInterleavedRows(b, heads, D) : b;
    },
  };
}

function noticesOf(architecture: string, { maxPositions, attentionScale, headDim, layers }: DecoderConfig, contextLength: number): string[] {
  const notices: string[] = [];
  if (contextLength < maxPositions) notices.push(`GGUF has no sliding window for ${architecture}; the context is given as ${contextLength} tokens, within which all is the same`);
  // Gemma 2 27B is known to readers by its size.
  if (Math.abs(attentionScale * Math.sqrt(headDim) - 1) > 1e-6 && layers.length !== 46 && layers.length !== 62) notices.push(`attention scores are scaled by ${attentionScale.toPrecision(4)}, not by 1 / sqrt(${headDim}), which GGUF cannot say for ${architecture}`);
  const period = architecture === 'gemma3' ? 6 : architecture === 'gemma2' ? 2 : null;
  if (period !== null && layers.some(({ window }, layer) => (window === null) !== (layer % period === period - 1))) notices.push(`readers take every ${period}th block to see all tokens, this model has others`);
  return notices;
}

interface Llama3Scaling {
  readonly factor: number;
  readonly low_freq_factor: number;
  readonly high_freq_factor: number;
  readonly original_max_position_embeddings: number;
}

/** What each rotary frequency is divided by, [D / 2]. */
function llama3Factors(theta: number, headDim: number, { factor, low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: length }: Llama3Scaling): Float32Array {
  return Float32Array.from({ length: headDim / 2 }, (_, pair) => {
    const waveLength = 2 * Math.PI * theta ** ((2 * pair) / headDim);
    if (waveLength < length / high) return 1;
    if (waveLength > length / low) return factor;
    const smooth = (length / waveLength - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
  });
}

function fieldsOf(architecture: string, fields: Readonly<Record<string, GgufField>>): Map<string, GgufField> {
  return new Map(Object.entries(fields).map(([name, field]) => [`${architecture}.${name}`, field]));
}

const u32 = (value: number): GgufField => ({ type: 'u32', value });
const f32 = (value: number): GgufField => ({ type: 'f32', value });

/** @param x [rows, columns]    @returns [columns, rows] */
function transposed(x: Float32Array, rows: number, columns: number): Float32Array {
  const result = new Float32Array(x.length);
  for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) result[column * rows + row] = x[row * columns + column] as number;
  return result;
}
