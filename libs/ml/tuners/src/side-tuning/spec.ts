import type { ModuleSite } from '@tunefleet/ml-nn';
import { z } from 'zod';
import { matchModules } from '../matching/module-sites';
import { patternProblem } from '../matching/python-pattern';
import { badField, refusalOf } from '../spec-refusal';
import type { TunableModel } from '../tuner';
import type { TunerSpecHalf } from '../tuner-spec';

const position = z.union([z.int().min(0).max(100), z.string().min(1).max(200)]);

/** The fields of SWIFT's Side, spelled and defaulted as there but where it has no usable default for a language model. @see Zhang et al. 2019, arXiv:1912.13503 */
export const sideTuningSpecSchema = z
  .strictObject({
    kind: z.literal('side-tuning'),
    /** Width of the model; null: taken from it. */
    dim: z.int().min(1).nullish().transform((value) => value ?? null),
    /** Modules, by a regular expression for whole paths; null: the final norm, so that nothing goes back through the blocks. */
    target_modules: z.string({ error: 'must be a regular expression for whole paths' }).min(1).max(1000).nullish().transform((value) => value ?? null),
    side_module_name: z.literal('mlp', { error: 'must be "mlp": "fcn4" and "alexnet" look at images' }).default('mlp'),
    /** For SWIFT: which argument of a module is read, and where the hidden states are in what it returns. */
    source_hidden_pos: position.default(0),
    target_hidden_pos: position.default(0),
  })
  .superRefine(({ target_modules }, context) => {
    const problem = target_modules === null ? null : patternProblem(target_modules);
    if (problem !== null) context.addIssue({ code: 'custom', path: ['target_modules'], message: problem });
  });
export type SideTuningSpec = z.infer<typeof sideTuningSpecSchema>;

/** @throws TunefleetError `invalid_input` */
export function matchSideTargets({ target_modules, dim }: Pick<SideTuningSpec, 'target_modules' | 'dim'>, model: TunableModel): ModuleSite[] {
  if (dim !== null && dim !== model.hiddenSize) throw badField('dim', `is ${dim}, but this ${model.modelType} model is ${model.hiddenSize} wide; leave it out`);
  const hits = matchModules(target_modules, model, ({ kind }) => kind === 'final-norm');
  const uneven = hits.find(({ inSize, outSize }) => inSize !== outSize);
  if (uneven) throw badField('target_modules', `"${uneven.path}" maps ${uneven.inSize} to ${uneven.outSize} numbers, but the network beside it keeps the width; name modules that do, such as "${hits.find(({ inSize, outSize }) => inSize === outSize)?.path ?? model.modules.at(-1)?.path}"`);
  return hits;
}

/** The mixing weight, and two maps with biases. */
export function sideParameterCount(targets: number, width: number): number {
  return targets * (1 + 2 * (width * width + width));
}

export const sideTuningSpec: TunerSpecHalf<SideTuningSpec> = {
  title: 'Side-Tuning',
  summary: 'a network beside a module, mixed with it by a learned share; at the end of the model it is cheap to train',
  learningRate: 1e-3,
  shapeKey: () => 'side-tuning',
  freeFields: ['source_hidden_pos', 'target_hidden_pos'],
  parse(fields) {
    const parsed = sideTuningSpecSchema.safeParse(fields);
    if (parsed.success) return parsed.data;
    throw refusalOf(parsed.error, Object.keys(sideTuningSpecSchema.shape), 'Side-Tuning');
  },
  countParameters: (spec, model) => sideParameterCount(matchSideTargets(spec, model).length, model.hiddenSize),
  untouchedBlocks: (spec, model) => Math.min(...matchSideTargets(spec, model).map(({ layer }) => layer)),
  routable: () => true,
  keptPerToken: (spec, model) => matchSideTargets(spec, model).length * 5 * model.hiddenSize,
};
