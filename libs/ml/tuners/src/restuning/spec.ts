import { z } from 'zod';
import { refusalOf } from '../spec-refusal';
import type { TunerSpecHalf } from '../tuner-spec';
import { slotsCount } from '../named-parameters/parameter-slots';
import { branchConfig, planBranches } from './plan';

const pattern = z.string().min(1).max(1000);

/**
 * ResTuning without a bypass: branches on modules of the frozen model. SWIFT has these fields and no such method, so its meaning here is ours; the paper's is the same
 * idea. @see Jiang et al. 2023, arXiv:2310.19859, section 3
 */
export const resTuningSpecSchema = z.strictObject({
  kind: z.literal('restuning'),
  /** Regular expression for whole paths, or whole paths; null: attention and MLP of every block, for `res_prefix` attention. */
  stem_modules: z.union([pattern, z.array(pattern).min(1).max(10_000)]).nullable().default(null),
  /** `res_adapter`, `res_prefix`, or one of them with options. */
  tuner_cfg: z.json().default('res_adapter'),
  /** W2 and b2 of every branch start at zero, and so the run at the base. Not for `res_prefix`. */
  zero_init_last: z.boolean().default(true),
  use_bypass: z.literal(false, { error: 'true is the tuner {"kind": "restuning-bypass"}' }).default(false),
});
export type ResTuningSpec = z.infer<typeof resTuningSpecSchema>;

export const resTuningSpec: TunerSpecHalf<ResTuningSpec> = {
  title: 'ResTuning',
  summary: 'a small network on the output of every attention and MLP, or keys and values beside their own',
  learningRate: 1e-3,
  shapeKey: ({ tuner_cfg: config }) => (typeof config === 'string' ? `restuning-${config}` : 'restuning-other'),
  freeFields: ['zero_init_last'],
  parse(fields) {
    const parsed = resTuningSpecSchema.safeParse(fields);
    if (!parsed.success) throw refusalOf(parsed.error, Object.keys(resTuningSpecSchema.shape), 'ResTuning');
    branchConfig(parsed.data.tuner_cfg, 0, null);
    return parsed.data;
  },
  countParameters: (spec, model) => slotsCount(planBranches(spec, model).flatMap(({ slots }) => slots)),
  routable: (spec, model) => planBranches(spec, model).every(({ config }) => config.type === 'adapter'),
  keptPerToken: (spec, model) => planBranches(spec, model).reduce((sum, { config }) => sum + (config.type === 'adapter' ? model.hiddenSize + 2 * config.length + (config.weight === 'none' ? 0 : model.hiddenSize) : 0), 0),
};
