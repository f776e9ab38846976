import { z } from 'zod';
import { TunefleetError, canonicalJson } from '@tunefleet/foundation';
import { formatAdapterConfig } from '../adapter-files';

const nameList = z.array(z.string().min(1).max(500)).max(100_000);
const namesOrPattern = z.union([z.string().min(1).max(10_000), nameList]).nullish();
const patternMap = z.record(z.string().max(500), z.number().positive()).nullish().transform((map) => map ?? {});

/**
 * `adapter_config.json` of a PEFT LoRA adapter, in the file's spelling. Only `peft_type` is compulsory; missing fields take PEFT's defaults.
 * @see huggingface/peft `src/peft/tuners/lora/config.py`
 */
export const loraAdapterConfigSchema = z.object({
  peft_type: z.literal('LORA'),
  task_type: z.enum(['SEQ_CLS', 'SEQ_2_SEQ_LM', 'CAUSAL_LM', 'TOKEN_CLS', 'QUESTION_ANS', 'FEATURE_EXTRACTION']).nullable().default(null),
  base_model_name_or_path: z.string().max(1000).nullable().default(null),
  revision: z.string().max(200).nullable().default(null),
  inference_mode: z.boolean().default(true),
  auto_mapping: z.record(z.string(), z.unknown()).nullable().default(null),
  r: z.int().min(1).max(65536).default(8),
  lora_alpha: z.number().positive().default(8),
  lora_dropout: z.number().min(0).max(1).default(0),
  bias: z.enum(['none', 'all', 'lora_only']).default('none'),
  fan_in_fan_out: z.boolean().default(false),
  use_rslora: z.boolean().default(false),
  use_dora: z.boolean().default(false),
  lora_bias: z.boolean().default(false),
  init_lora_weights: z.union([z.boolean(), z.string().max(100)]).default(true),
  target_modules: namesOrPattern.transform((value) => value ?? null),
  exclude_modules: namesOrPattern.transform((value) => value ?? null),
  modules_to_save: nameList.nullable().default(null),
  layers_to_transform: z.union([z.int(), z.array(z.int()).max(10_000)]).nullable().default(null),
  layers_pattern: z.union([z.string().max(500), nameList]).nullable().default(null),
  rank_pattern: patternMap,
  alpha_pattern: patternMap,
  trainable_token_indices: z.union([z.array(z.int()), z.record(z.string(), z.array(z.int()))]).nullable().default(null),
  target_parameters: nameList.nullable().default(null),
});
export type LoraAdapterConfig = z.infer<typeof loraAdapterConfigSchema>;

/** Fields that other versions write and that change nothing while they hold these values. */
const NEUTRAL: Readonly<Record<string, readonly unknown[]>> = {
  peft_version: ['*'],
  loftq_config: [null, '{}'],
  eva_config: [null],
  corda_config: [null],
  lora_ga_config: [null],
  megatron_config: [null],
  megatron_core: ['*'],
  layer_replication: [null],
  use_qalora: [false],
  qalora_group_size: ['*'],
  ensure_weight_tying: ['*'],
  alora_invocation_tokens: [null],
  arrow_config: [null],
  use_bdlora: [null, false],
  velora_config: [null],
  kasa_config: [null],
  monteclora_config: [null],
};

export interface ParsedLoraConfig {
  readonly config: LoraAdapterConfig;
  /** Names of fields we do not know and therefore ignore; worth a warning to the user. */
  readonly ignoredFields: readonly string[];
}

/** @throws TunefleetError `incompatible_artifact` when it is not a LoRA configuration */
export function loraConfigOf(record: Readonly<Record<string, unknown>>): ParsedLoraConfig {
  const refuse = (what: string): TunefleetError => new TunefleetError('incompatible_artifact', `adapter_config.json ${what}`, { reason: 'bad_adapter_config' });
  if (record['peft_type'] !== 'LORA') throw refuse(`has peft_type ${JSON.stringify(record['peft_type'])}; wanted is "LORA"`);
  const parsed = loraAdapterConfigSchema.safeParse(record);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw refuse(`has a bad field ${issue?.path.join('.')}: ${issue?.message}`);
  }
  const known = new Set(Object.keys(loraAdapterConfigSchema.shape));
  const ignoredFields = Object.keys(record).filter((key) => !known.has(key) && !isNeutral(key, record[key]));
  return { config: parsed.data, ignoredFields };
}

function isNeutral(key: string, value: unknown): boolean {
  const allowed = Object.hasOwn(NEUTRAL, key) ? NEUTRAL[key] : undefined;
  return allowed !== undefined && allowed.some((each) => each === '*' || each === value || (each === '{}' && canonicalJson(value) === '{}'));
}

/**
 * The file's text: long-established fields only (an older PEFT warns about fields it does not know, a newer one fills the gap),
 * keys sorted, indent 2, floats written as Python writes them where JSON allows.
 */
export function formatLoraConfig(config: LoraAdapterConfig): string {
  return formatAdapterConfig({ ...config, inference_mode: true });
}
