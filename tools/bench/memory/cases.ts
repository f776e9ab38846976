import type { FloatDType } from '@tunefleet/ml-tensor';
import { SMOLLM2_135M } from '../model/shape';

/** Models of SmolLM2-135M's widths and three blocks: bytes are counted, so more of the same would show nothing new. */
const LAYERS = 3;
const WIDTHS = { vocab_size: 16384, hidden_size: 576, intermediate_size: 1536, num_hidden_layers: LAYERS, num_attention_heads: 9, num_key_value_heads: 3, head_dim: 64, max_position_embeddings: 2048, tie_word_embeddings: true };

export const MODELS = {
  smollm2: { ...SMOLLM2_135M, num_hidden_layers: LAYERS },
  llama: { ...WIDTHS, model_type: 'llama' },
  'llama, head apart': { ...WIDTHS, model_type: 'llama', tie_word_embeddings: false },
  qwen3: { ...WIDTHS, model_type: 'qwen3' },
  phi3: { ...WIDTHS, model_type: 'phi3' },
  gemma2: { ...WIDTHS, model_type: 'gemma2' },
  gemma3: { ...WIDTHS, model_type: 'gemma3_text' },
  gpt2: { model_type: 'gpt2', vocab_size: 16384, n_embd: 576, n_layer: LAYERS, n_head: 9, n_positions: 1024 },
} as const satisfies Readonly<Record<string, Readonly<Record<string, unknown>>>>;
export type ModelName = keyof typeof MODELS;

const TUNERS = {
  lora: { kind: 'lora' },
  'lora, all maps': { kind: 'lora', target_modules: 'all-linear' },
  'lora, dropout': { kind: 'lora', target_modules: 'all-linear', lora_dropout: 0.1 },
  'lora, head trained': { kind: 'lora', modules_to_save: ['lm_head'] },
  DoRA: { kind: 'lora', target_modules: 'all-linear', use_dora: true },
  qlora: { kind: 'qlora' },
  ia3: { kind: 'ia3' },
  adapter: { kind: 'adapter' },
  'side-tuning': { kind: 'side-tuning' },
  'prompt-tuning': { kind: 'prompt-tuning' },
  'prefix-tuning': { kind: 'prefix-tuning' },
  restuning: { kind: 'restuning' },
  bypass: { kind: 'restuning-bypass' },
  full: { kind: 'full' },
  'full, last block': { kind: 'full', last_blocks: 1 },
} as const;
type TunerName = keyof typeof TUNERS;

export interface MemoryCase {
  readonly name: string;
  readonly model: ModelName;
  readonly tuner: Readonly<Record<string, unknown>>;
  readonly computeDtype: FloatDType;
  readonly weightDtype: FloatDType;
  readonly rows: number;
  readonly columns: number;
  readonly recomputeBlocks: boolean;
  readonly neftuneNoiseAlpha?: number;
  /** Share of every row that carries loss. */
  readonly learned: number;
}

interface Details {
  readonly dtype?: FloatDType;
  readonly weights?: FloatDType;
  readonly recompute?: true;
  readonly noise?: number;
  readonly learned?: number;
}

function of(model: ModelName, tuner: TunerName, [rows, columns]: readonly [number, number], { dtype = 'f32', weights = dtype, recompute, noise, learned = 1 }: Details = {}): MemoryCase {
  const precision = weights === dtype ? dtype : `${dtype} over ${weights}`;
  const more = [...(recompute ? ['recompute'] : []), ...(noise === undefined ? [] : ['noise']), ...(learned === 1 ? [] : [`${learned * 100} % learned`])];
  return {
    name: [`${model}: ${tuner}`, `${rows}x${columns}`, precision, ...more].join(', '),
    model,
    tuner: TUNERS[tuner],
    computeDtype: dtype,
    weightDtype: weights,
    rows,
    columns,
    recomputeBlocks: recompute ?? false,
    ...(noise === undefined ? {} : { neftuneNoiseAlpha: noise }),
    learned,
  };
}

const SHORT = [4, 256] as const;
const MEDIUM = [2, 512] as const;
const LONG = [1, 1024] as const;

export const CASES: readonly MemoryCase[] = [
  of('smollm2', 'lora, all maps', SHORT),
  of('smollm2', 'lora', LONG, { dtype: 'bf16', learned: 0.25 }),
  of('smollm2', 'full', SHORT, { dtype: 'bf16', recompute: true }),
  ...[SHORT, MEDIUM, LONG].flatMap((shape) => [of('llama', 'lora, all maps', shape), of('llama', 'lora, all maps', shape, { recompute: true }), of('llama', 'lora, all maps', shape, { dtype: 'bf16' })]),
  of('llama', 'lora, all maps', [8, 64]),
  of('llama', 'lora, all maps', SHORT, { learned: 0.25 }),
  of('llama', 'lora, all maps', LONG, { learned: 0.25, recompute: true }),
  of('llama', 'lora, all maps', SHORT, { noise: 5 }),
  of('llama', 'lora, all maps', SHORT, { weights: 'bf16' }),
  ...(Object.keys(TUNERS) as TunerName[]).filter((tuner) => tuner !== 'lora, all maps').flatMap((tuner) => [of('llama', tuner, SHORT), of('llama', tuner, LONG, { dtype: 'bf16', learned: 0.25, recompute: true })]),
  of('llama, head apart', 'full', SHORT),
  of('llama, head apart', 'full', LONG, { dtype: 'bf16', recompute: true }),
  of('llama, head apart', 'lora, head trained', MEDIUM),
  ...(['qwen3', 'phi3', 'gemma2', 'gemma3', 'gpt2'] as const).flatMap((model) => [
    of(model, 'lora, all maps', SHORT),
    of(model, 'lora, all maps', LONG, { learned: 0.25 }),
    of(model, 'lora, all maps', LONG, { dtype: 'bf16', recompute: true }),
    of(model, 'qlora', MEDIUM, { dtype: 'bf16' }),
    of(model, 'full', MEDIUM),
  ]),
];
