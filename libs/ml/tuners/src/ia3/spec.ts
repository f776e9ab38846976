import { z } from 'zod';
import { matchesName, selects, type NameTest } from '../matching/module-names';
import { matchesSwiftName } from '../matching/module-sites';
import { patternProblem } from '../matching/python-pattern';
import { withinTimeLimit } from '../matching/time-limit';
import { badField, refusalOf } from '../spec-refusal';
import type { TunableModel } from '../tuner';
import type { TunerSpecHalf } from '../tuner-spec';

const names = z.union([z.string().min(1).max(10_000), z.array(z.string().min(1).max(500)).max(100_000)]).nullish().transform((value) => value ?? null);

/** The fields of PEFT's IA3. @see Liu et al. 2022, arXiv:2205.05638; huggingface/peft `tuners/ia3/config.py` */
export const ia3SpecSchema = z
  .strictObject({
    kind: z.literal('ia3'),
    /** Regular expression, names, `all-linear`, or null for the model type's usual ones. */
    target_modules: names,
    exclude_modules: names,
    /** Those of the targets whose input is scaled instead of their output; null: the usual ones. */
    feedforward_modules: names,
    /** true: starts at the base; false: at random, for tests. */
    init_ia3_weights: z.boolean().default(true),
  })
  .superRefine((spec, context) => {
    for (const field of ['target_modules', 'exclude_modules', 'feedforward_modules'] as const) {
      const value = spec[field];
      const problem = typeof value === 'string' ? patternProblem(value) : null;
      if (problem !== null) context.addIssue({ code: 'custom', path: [field], message: problem });
    }
  });
export type Ia3Spec = z.infer<typeof ia3SpecSchema>;

/** A linear map with a factor on each of its outputs or, of a feed-forward module, inputs. */
export interface Ia3Target {
  readonly path: string;
  readonly side: 'input' | 'output';
  readonly size: number;
  readonly fanInFanOut: boolean;
}

interface Usual {
  readonly targets: readonly string[];
  readonly feedforward: readonly string[];
}
const gated = (...attention: string[]): Usual => ({ targets: [...attention, 'down_proj'], feedforward: ['down_proj'] });

/** What PEFT scales when the lists are null, by model type. Qwen 3, Gemma and Phi-3 are ours, after their likes. @see huggingface/peft `src/peft/utils/constants.py` */
const USUAL: Readonly<Record<string, Usual>> = {
  llama: gated('k_proj', 'v_proj'),
  mistral: gated('k_proj', 'v_proj'),
  qwen2: gated('q_proj', 'v_proj'),
  qwen3: gated('q_proj', 'v_proj'),
  gemma2: gated('q_proj', 'v_proj'),
  gemma3_text: gated('q_proj', 'v_proj'),
  phi3: gated('qkv_proj'),
  gpt2: { targets: ['c_attn', 'mlp.c_proj'], feedforward: ['mlp.c_proj'] },
  bert: { targets: ['key', 'value', 'output.dense'], feedforward: ['output.dense'] },
};

/** @throws TunefleetError `invalid_input` when nothing matches or the model type has no usual targets */
export function matchIa3Targets(spec: Ia3Spec, model: TunableModel): Ia3Target[] {
  return withinTimeLimit(() => {
    const usual = USUAL[model.modelType];
    const target = expand(spec.target_modules, model) ?? usual?.targets;
    if (!target) throw badField('target_modules', `is needed: there are no usual targets for model type "${model.modelType}"; use "all-linear"`);
    const feedforward = spec.feedforward_modules ?? (spec.target_modules === null ? (usual?.feedforward ?? []) : []);
    const selection = { target, exclude: spec.exclude_modules, layers: [], layersPattern: [] };
    const hits = model.projections.filter(({ path }) => selects(selection, path));
    const offered = [...new Set(model.projections.map(({ path }) => path.split('.').at(-1)))].join(', ');
    if (hits.length === 0) throw badField('target_modules', `${JSON.stringify(target).slice(0, 200)} matches no linear map of this ${model.modelType} model; it has ${offered}, or use "all-linear"`);
    const idle = typeof target === 'string' ? undefined : target.find((entry) => !model.projections.some(({ path }) => matchesName([entry], path)));
    if (idle !== undefined) throw badField('target_modules', `"${idle}" names no linear map of this ${model.modelType} model; it has ${offered}`);
    const stray = typeof feedforward === 'string' ? undefined : feedforward.find((entry) => !hits.some(({ path }) => path.endsWith(entry)));
    if (stray !== undefined) throw badField('feedforward_modules', `"${stray}" is none of the targets; feed-forward modules are those of target_modules whose input is scaled`);
    return hits.map(({ path, inSize, outSize, fanInFanOut }): Ia3Target => {
      // PEFT's test is a plain "ends with" here.
      const side = matchesSwiftName(feedforward, path) ? 'input' : 'output';
      return { path, side, size: side === 'input' ? inSize : outSize, fanInFanOut: fanInFanOut === true };
    });
  });
}

function expand(target: NameTest | null, model: TunableModel): NameTest | null {
  return typeof target === 'string' && target.toLowerCase() === 'all-linear' ? model.projections.map(({ path }) => path) : target;
}

export const ia3Spec: TunerSpecHalf<Ia3Spec> = {
  title: 'IA3',
  summary: 'one factor per channel of keys, values and the inside of the MLP: the fewest parameters',
  // Liu et al. 2022, section 3.3: 3e-3.
  learningRate: 3e-3,
  shapeKey: () => 'ia3',
  freeFields: ['init_ia3_weights'],
  parse(fields) {
    const parsed = ia3SpecSchema.safeParse(fields);
    if (parsed.success) return parsed.data;
    throw refusalOf(parsed.error, Object.keys(ia3SpecSchema.shape), 'IA3');
  },
  countParameters: (spec, model) => matchIa3Targets(spec, model).reduce((sum, { size }) => sum + size, 0),
  routable: () => true,
  // What is scaled, by target.
  keptPerToken: (spec, model) => matchIa3Targets(spec, model).reduce((sum, { size }) => sum + size, 0),
};
