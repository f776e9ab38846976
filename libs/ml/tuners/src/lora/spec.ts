import { TunefleetError } from '@tunefleet/foundation';
import { z } from 'zod';
import type { TunerSpecHalf } from '../tuner-spec';
import { blockOf } from '../matching/blocks';
import { patternProblem } from '../matching/python-pattern';
import { planLora } from './match';
import { loraParameterCount } from './parameters';
import { isWeightStart } from './start/weight-start';

const nameList = z.array(z.string().min(1).max(500)).max(100_000);
const namesOrPattern = z.union([z.string().min(1).max(1000), nameList.min(1)]);
const RANK_MAX = 1024;
const rank = z.int().min(1).max(RANK_MAX);
const tokenList = z.array(z.int().min(0)).min(1).max(100_000);
const layer = z.int().min(0).max(100_000);

/** Starts of PEFT that look at data or quantise the base first. */
const DATA_STARTS = ['eva', 'corda', 'lora_ga', 'loftq'];

function startProblem({ input }: { readonly input?: unknown }): string {
  if (typeof input === 'string' && DATA_STARTS.includes(input.toLowerCase())) {
    return `"${input}" is not offered: it needs ${input.toLowerCase() === 'loftq' ? 'a base quantised to fit it' : 'passes over the data before training'}; "pissa_niter_16" is the nearest start that follows from the weights`;
  }
  return 'must be true, false, "gaussian", "orthogonal", "pissa", "pissa_niter_<k>" (as "pissa_niter_16") or "olora"';
}

/** LoRA's fields, spelled and defaulted as in PEFT. @see Hu et al. 2021, arXiv:2106.09685 */
export const loraSpecSchema = z
  .strictObject({
    kind: z.literal('lora'),
    r: rank.default(8),
    lora_alpha: z.number().positive().max(1e6).default(8),
    /** Of the low-rank branch's input, in training only. */
    lora_dropout: z.number().min(0).lt(1).default(0),
    /** Regular expression, names, `all-linear`, or null for the model type's usual ones. */
    target_modules: namesOrPattern.nullish().transform((value) => value ?? null),
    exclude_modules: namesOrPattern.nullish().transform((value) => value ?? null),
    /** alpha / sqrt(r) instead of alpha / r. @see arXiv:2312.03732 */
    use_rslora: z.boolean().default(false),
    /** DoRA: the length of every row of W + s B A is trained apart from its direction. @see Liu et al. 2024, arXiv:2402.09353 */
    use_dora: z.boolean().default(false),
    /**
     * true: A Kaiming-uniform, B zero; gaussian: A normal with deviation 1/r; orthogonal: both random, B A = 0; pissa, pissa_niter_<k>, olora: what is largest, or comes
     * first, in the base weights; false: B random too, for tests.
     */
    init_lora_weights: z
      .union([z.boolean(), z.literal(['gaussian', 'orthogonal', 'pissa', 'olora']), z.templateLiteral(['pissa_niter_', z.int().min(0).max(99)])], { error: startProblem })
      .default(true),
    layers_to_transform: z.union([layer, z.array(layer).max(100_000)]).nullish().transform((value) => value ?? null),
    layers_pattern: z.union([z.string().min(1).max(500), nameList]).nullish().transform((value) => value ?? null),
    rank_pattern: z.record(z.string().min(1).max(500), rank).nullish().transform((value) => value ?? {}),
    alpha_pattern: z.record(z.string().min(1).max(500), z.number().positive().max(1e6)).nullish().transform((value) => value ?? {}),
    /** Names of token tables that are trained whole, as copies. */
    modules_to_save: nameList.nullish().transform((value) => (value?.length ? value : null)),
    /** Rows of the embedding that are trained. */
    trainable_token_indices: z.union([tokenList, z.record(z.string().min(1).max(500), tokenList)]).nullish().transform((value) => value ?? null),
    /** LoRA+: how many times faster B learns than A, usually 10 to 16; null: not at all. */
    loraplus_lr_ratio: z.number().positive().max(1000).nullish().transform((value) => value ?? null),
    /** With LoRA+: peak learning rate of a low-rank embedding. */
    loraplus_lr_embedding: z.number().min(0).max(1).default(1e-6),
    /** In a model whose head is the embedding table: what is trained of one is trained of both. */
    ensure_weight_tying: z.boolean().default(false),
    /** A bias of B, zero at the start, added times the scale. */
    lora_bias: z.boolean().default(false),
    /** Which biases of the base are trained: none, those of adapted maps, all. */
    bias: z.enum(['none', 'lora_only', 'all']).default('none'),
  })
  .superRefine((spec, context) => {
    const issue = (field: string, message: string) => context.addIssue({ code: 'custom', path: [field], message });
    const layers = spec.layers_to_transform;
    if (layers !== null && typeof spec.target_modules === 'string') issue('layers_to_transform', 'cannot be used together with a string in target_modules; list the names instead');
    if (spec.layers_pattern !== null && layers === null) issue('layers_pattern', 'needs layers_to_transform');
    if (spec.lora_bias && spec.use_dora) issue('lora_bias', 'cannot be used together with use_dora');
    if (spec.lora_bias && (typeof spec.init_lora_weights === 'string')) issue('lora_bias', `cannot be used together with the start "${spec.init_lora_weights}"`);
    const init = spec.init_lora_weights;
    const ranks = [spec.r, ...Object.values(spec.rank_pattern)];
    if (init === 'orthogonal' && ranks.some((each) => each % 2 !== 0)) issue('init_lora_weights', `"orthogonal" needs even ranks, not ${ranks.join(', ')}`);
    if (isWeightStart(init)) {
      const patterned = ranks.length + Object.keys(spec.alpha_pattern).length > 1;
      if (spec.use_rslora && patterned) issue('use_rslora', `cannot be used together with rank_pattern or alpha_pattern when the start is "${init}": such an adapter has no plain LoRA form to be saved in`);
      if (ranks.some((each) => each > RANK_MAX / 2)) issue('r', `can be at most ${RANK_MAX / 2} when the start is "${init}", which is saved with twice the rank`);
      if (spec.use_dora && spec.lora_dropout > 0) issue('lora_dropout', `must be 0 when use_dora is used with the start "${init}"`);
    }
    for (const [field, patterns] of Object.entries(patternsOf(spec))) {
      const bad = patterns.map(patternProblem).find((problem) => problem !== null);
      if (bad !== undefined) issue(field, bad);
    }
  });
export type LoraSpec = z.infer<typeof loraSpecSchema>;

/** Regular expressions by field. */
function patternsOf(spec: Pick<LoraSpec, 'target_modules' | 'exclude_modules' | 'layers_pattern' | 'rank_pattern' | 'alpha_pattern'>): Record<string, string[]> {
  const whole = (value: LoraSpec['target_modules']) => (typeof value === 'string' ? [value] : []);
  return {
    target_modules: whole(spec.target_modules),
    exclude_modules: whole(spec.exclude_modules),
    layers_pattern: spec.layers_pattern === null ? [] : [spec.layers_pattern].flat(),
    rank_pattern: Object.keys(spec.rank_pattern),
    alpha_pattern: Object.keys(spec.alpha_pattern),
  };
}

/** PEFT fields of methods still to come; a value that switches them off is as good as none. */
const LATER = [
  'target_parameters', 'loftq_config', 'eva_config',
  'corda_config', 'lora_ga_config', 'layer_replication', 'use_qalora', 'megatron_config', 'alora_invocation_tokens', 'arrow_config',
];

/** A PEFT field that is right or wrong for a base, not chosen: PEFT corrects it, we need not ask. */
const FOLLOWS_FROM_BASE = 'fan_in_fan_out';

export const loraSpec: TunerSpecHalf<LoraSpec> = {
  title: 'LoRA',
  summary: 'a low-rank update of linear maps; the usual choice',
  // As in QLoRA's experiments with models of 7 and 13 B parameters: Dettmers et al. 2023, arXiv:2305.14314, table 9.
  learningRate: 2e-4,
  shapeKey: ({ r, use_dora }) => `${use_dora ? 'dora' : 'lora'}-${r}`,
  freeFields: ['lora_dropout', 'init_lora_weights', 'loraplus_lr_ratio', 'loraplus_lr_embedding'],
  parse(fields) {
    const given = Object.fromEntries(Object.entries(fields).filter(([name, value]) => !(LATER.includes(name) && isOff(value)) && !(name === FOLLOWS_FROM_BASE && typeof value === 'boolean')));
    const parsed = loraSpecSchema.safeParse(given);
    if (parsed.success) return parsed.data;
    throw refusal(parsed.error.issues[0]);
  },
  countParameters: (spec, model) => loraParameterCount(spec, planLora(spec, model)),
  untouchedBlocks(spec, model) {
    const { targets, biases, norms, embedding, saved, tokens } = planLora(spec, model);
    if (embedding || tokens || saved.some(({ table }) => table === 'embedding')) return 0;
    return [...targets, ...biases, ...norms].reduce((first, { path }) => Math.min(first, blockOf(path, model) ?? model.layers), model.layers);
  },
  trainedTables(spec, model) {
    const { saved } = planLora(spec, model);
    const [embedding, head] = (['embedding', 'head'] as const).map((name) => saved.some(({ table }) => table === name)) as [boolean, boolean];
    return { embedding, head: head || (embedding && model.tables?.tied === true && spec.ensure_weight_tying) };
  },
  routable: (spec, model) => planLora(spec, model).norms.length === 0,
  // Factors side by side, with zeros between them.
  boundCopies: 2,
  // Under dropout, and with gains on the outputs.
  inputCopies: ({ lora_dropout, use_dora }) => (lora_dropout > 0 ? 7 : 0) + (use_dora ? 5 : 0),
  // What the gain multiplies; masks of a byte per input.
  keptPerToken(spec, model) {
    if (!spec.use_dora && spec.lora_dropout === 0) return 0;
    return planLora(spec, model).targets.reduce((sum, { inSize, outSize }) => sum + (spec.use_dora ? outSize : 0) + (spec.lora_dropout > 0 ? inSize / 2 : 0), 0);
  },
};

function isOff(value: unknown): boolean {
  return value === null || value === false || (typeof value === 'object' && Object.keys(value).length === 0);
}

function refusal(issue: z.core.$ZodIssue | undefined): TunefleetError {
  const unknown = issue?.code === 'unrecognized_keys' ? issue.keys[0] : undefined;
  const field = unknown ?? issue?.path[0]?.toString() ?? '';
  const what =
    unknown === undefined
      ? issue?.message
      : LATER.includes(unknown)
        ? 'is not supported yet; leave it out'
        : `is not a field of LoRA; the fields are ${Object.keys(loraSpecSchema.shape).filter((name) => name !== 'kind').join(', ')}`;
  return new TunefleetError('invalid_input', `tuner.${field}: ${what}`, { reason: 'invalid_tuner', param: `tuner.${field}` });
}
