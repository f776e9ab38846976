import { z } from 'zod';
import type { TunerSpecHalf } from '../tuner-spec';
import { slotsCount } from '../named-parameters/parameter-slots';
import { refusalOf } from '../spec-refusal';
import { blockTuners } from './block-tuners';
import { bypassSlots } from './slots';
import { wireBypass } from './wiring';

const pattern = z.string().min(1).max(1000);
const hook = z.enum(['input', 'output'], { error: 'must be "input" or "output"' });
const width = z.int().min(1).max(1_000_000);

/** Fields of SWIFT's `ResTuningConfig` with our defaults for decoders, and ours at the end. @see Jiang et al. 2023, arXiv:2310.19859 */
export const bypassSpecSchema = z.strictObject({
  kind: z.literal('restuning-bypass'),
  /** C of every block, or one per block; null: the model's. */
  dims: z.union([width, z.array(width).max(10_000)]).nullable().default(null),
  /** Regular expression; the first block it matches. null: the input of the first stem. */
  root_modules: pattern.nullable().default(null),
  root_modules_hook: hook.default('input'),
  /** Regular expression, or whole paths in the order of the bypass's blocks; null: all blocks of the model. */
  stem_modules: z.union([pattern, z.array(pattern).min(1).max(10_000)]).nullable().default(null),
  stem_modules_hook: hook.default('output'),
  /** Regular expression; null: the final norm, whose input is replaced. */
  target_modules: pattern.nullable().default(null),
  target_modules_hook: hook.default('input'),
  target_hidden_pos: z.union([z.int(), z.string().max(100)]).nullable().default(null),
  tuner_cfg: z.json().default('res_adapter'),
  use_upsample: z.literal(false, { error: 'enlarges images; a language model has none, leave it out' }).default(false),
  upsample_out_channels: z.null({ error: 'is for images; a language model has none, leave it out' }).default(null),
  zero_init_last: z.boolean().default(false),
  use_bypass: z.literal(true, { error: 'false is the tuner {"kind": "restuning"}' }).default(true),
  /** Ours: every which stem is kept, counted from the last. */
  stem_stride: z.int().min(1).max(10_000).default(1),
  /** Ours. identity: the run starts at the base's function. Default identity, with `bypass_mix: "gate"` null. */
  bypass_init: z.literal('identity', { error: 'must be "identity" or null' }).nullish(),
  /** Ours. sum: Lat + Ver; gate: λ Lat + (1 - λ) Ver with a learned λ per block. */
  bypass_mix: z.enum(['sum', 'gate'], { error: 'must be "sum" or "gate"' }).default('sum'),
});
const settled = bypassSpecSchema
  .superRefine(({ bypass_init, bypass_mix }, context) => {
    if (bypass_init === 'identity' && bypass_mix === 'gate') context.addIssue({ code: 'custom', path: ['bypass_init'], message: '"identity" and bypass_mix "gate" exclude each other: a gate starts half open; leave one out' });
  })
  .transform((spec) => ({ ...spec, bypass_init: spec.bypass_init === undefined && spec.bypass_mix === 'sum' ? ('identity' as const) : (spec.bypass_init ?? null) }));
export type BypassSpec = z.infer<typeof settled>;

export const bypassSpec: TunerSpecHalf<BypassSpec> = {
  title: 'ResTuning-Bypass',
  summary: 'a small network beside the frozen model, which runs without gradients and, from the second epoch on, not at all',
  learningRate: 1e-3,
  shapeKey: ({ tuner_cfg: config, stem_stride: stride }) => (config === 'res_adapter' ? `restuning-bypass-${stride}` : `restuning-bypass-${stride}-other`),
  freeFields: ['zero_init_last', 'bypass_init'],
  parse(fields) {
    const parsed = settled.safeParse(fields);
    if (!parsed.success) throw refusalOf(parsed.error, Object.keys(bypassSpecSchema.shape), 'ResTuning-Bypass');
    const { tuner_cfg: config } = parsed.data;
    const listed = Array.isArray(config) ? config.length : null;
    for (let block = 0; block < Math.max(1, listed ?? 1); block++) blockTuners(config, block, listed);
    return parsed.data;
  },
  countParameters: (spec, model) => slotsCount(bypassSlots(wireBypass(spec, model), 'default')),
  stemStates: (spec, model) => wireBypass(spec, model).states.length,
  routable: () => true,
  keptPerToken(spec, model) {
    const { states, blocks } = wireBypass(spec, model);
    const inside = blocks.flatMap(({ lateral, vertical }) => [lateral, vertical]).reduce((sum, tuner) => sum + (tuner.type === 'adapter' ? 2 * tuner.length + (tuner.weight === 'none' ? 0 : model.hiddenSize) : 0), 0);
    return (states.length + 2 * blocks.length) * model.hiddenSize + inside;
  },
};
