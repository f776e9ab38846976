import { z } from 'zod';
import { matchModules } from '../matching/module-sites';
import { patternProblem } from '../matching/python-pattern';
import { badField, refusalOf } from '../spec-refusal';
import type { TunableModel } from '../tuner';
import type { TunerSpecHalf } from '../tuner-spec';

export const ACTIVATIONS = ['gelu', 'gelu_new', 'gelu_pytorch_tanh', 'relu', 'silu', 'swish', 'tanh'] as const;
const MODULES = z.union([z.string().min(1).max(1000), z.array(z.string().min(1).max(500)).min(1).max(10_000)]);

/** The fields of SWIFT's Adapter, spelled and defaulted as there but where it has no usable default. @see Houlsby et al. 2019, arXiv:1902.00751 */
export const adapterSpecSchema = z
  .strictObject({
    kind: z.literal('adapter'),
    /** Width of the model; null: taken from it. */
    dim: z.int().min(1).nullish().transform((value) => value ?? null),
    /** Modules, by a regular expression for whole paths or a list of path endings; null: the MLP of every block. */
    target_modules: MODULES.nullish().transform((value) => value ?? null),
    /** Width inside. */
    adapter_length: z.int().min(1).max(65_536).default(128),
    act_layer: z.enum(ACTIVATIONS, { error: `must be one of ${ACTIVATIONS.join(', ')}` }).default('gelu'),
    /** Starts at the base model: W2 and b2 are zero. Our own; SWIFT starts a little beside it. */
    zero_init_last: z.boolean().default(false),
    /** For SWIFT: where the hidden states are in what a module returns, and which of its methods is wrapped. */
    hidden_pos: z.union([z.int().min(0).max(100), z.string().min(1).max(200)]).nullish().transform((value) => value ?? null),
    method_name: z.string().min(1).max(200).default('forward'),
  })
  .superRefine(({ target_modules }, context) => {
    const problem = typeof target_modules === 'string' ? patternProblem(target_modules) : null;
    if (problem !== null) context.addIssue({ code: 'custom', path: ['target_modules'], message: problem });
  });
export type AdapterSpec = z.infer<typeof adapterSpecSchema>;

/** A module that gets an adapter behind it. */
export interface AdapterTarget {
  readonly path: string;
  readonly layer: number;
  /** Whether Transformers returns its hidden states in a tuple. */
  readonly inTuple: boolean;
}

/** @throws TunefleetError `invalid_input` */
export function matchAdapterTargets({ target_modules, dim }: Pick<AdapterSpec, 'target_modules' | 'dim'>, model: TunableModel): AdapterTarget[] {
  if (dim !== null && dim !== model.hiddenSize) throw badField('dim', `is ${dim}, but this ${model.modelType} model is ${model.hiddenSize} wide; leave it out`);
  return matchModules(target_modules, model, ({ kind }) => kind === 'mlp').map(({ path, kind, layer }) => ({ path, layer, inTuple: kind === 'attention' }));
}

export function adapterParameterCount(targets: number, width: number, length: number): number {
  return targets * (2 * width * length + length + width);
}

export const adapterSpec: TunerSpecHalf<AdapterSpec> = {
  title: 'Adapter',
  summary: 'a small network behind the MLP of every block',
  // Houlsby et al. 2019, section 3.2: 3e-5 to 3e-3 were tried for BERT.
  learningRate: 3e-4,
  shapeKey: ({ adapter_length }) => `adapter-${adapter_length}`,
  freeFields: ['zero_init_last', 'hidden_pos', 'method_name'],
  parse(fields) {
    const parsed = adapterSpecSchema.safeParse(fields);
    if (parsed.success) return parsed.data;
    throw refusalOf(parsed.error, Object.keys(adapterSpecSchema.shape), 'the adapter');
  },
  countParameters: (spec, model) => adapterParameterCount(matchAdapterTargets(spec, model).length, model.hiddenSize, spec.adapter_length),
  untouchedBlocks: (spec, model) => Math.min(...matchAdapterTargets(spec, model).map(({ layer }) => layer)),
  routable: () => true,
  // Input of both maps and of the activation, in f32.
  keptPerToken: (spec, model) => matchAdapterTargets(spec, model).length * (model.hiddenSize + 2 * spec.adapter_length),
};
