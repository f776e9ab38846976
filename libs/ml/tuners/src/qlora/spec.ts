import { z } from 'zod';
import { loraSpec, type LoraSpec } from '../lora/spec';
import { refusalOf } from '../spec-refusal';
import type { TunerSpecHalf } from '../tuner-spec';

const quantisationSchema = z.object({
  /** Code book of the base's weights, spelled as in Transformers: quantiles of the normal distribution, or floats of 4 bits. */
  bnb_4bit_quant_type: z.enum(['nf4', 'fp4'], { error: 'must be "nf4" or "fp4"' }).default('nf4'),
  /** The scales of blocks in 8 bits: 4.13 instead of 4.5 bits a weight. */
  bnb_4bit_use_double_quant: z.boolean().default(true),
});
type QuantisationFields = z.infer<typeof quantisationSchema>;

/** LoRA on a base whose linear maps rest in 4 bits. Every field of LoRA, and how to quantise. @see Dettmers et al. 2023, arXiv:2305.14314 */
export type QloraSpec = Omit<LoraSpec, 'kind'> & QuantisationFields & { readonly kind: 'qlora' };

/** What is trained and saved. */
export function loraOf({ bnb_4bit_quant_type: _type, bnb_4bit_use_double_quant: _double, ...fields }: QloraSpec): LoraSpec {
  return { ...fields, kind: 'lora' };
}

export const qloraSpec: TunerSpecHalf<QloraSpec> = {
  title: 'QLoRA',
  summary: 'a low-rank update of every linear map of a base kept in 4 bits; for models that do not fit otherwise',
  learningRate: loraSpec.learningRate,
  shapeKey: (spec) => `q${loraSpec.shapeKey(loraOf(spec))}`,
  freeFields: loraSpec.freeFields,
  parse(fields) {
    const { bnb_4bit_quant_type, bnb_4bit_use_double_quant, ...rest } = fields;
    const quantisation = quantisationSchema.safeParse({ bnb_4bit_quant_type, bnb_4bit_use_double_quant });
    if (!quantisation.success) throw refusalOf(quantisation.error, Object.keys(quantisationSchema.shape), 'QLoRA');
    const lora = loraSpec.parse({ ...rest, target_modules: rest['target_modules'] ?? 'all-linear', kind: 'lora' });
    return { ...lora, ...quantisation.data, kind: 'qlora' };
  },
  countParameters: (spec, model) => loraSpec.countParameters(loraOf(spec), model),
  untouchedBlocks: (spec, model) => loraSpec.untouchedBlocks?.(loraOf(spec), model) ?? 0,
  trainedTables: (spec, model) => loraSpec.trainedTables?.(loraOf(spec), model) ?? { embedding: false, head: false },
  routable: (spec, model) => loraSpec.routable?.(loraOf(spec), model) ?? false,
  inputCopies: (spec) => loraSpec.inputCopies?.(loraOf(spec)) ?? 0,
  ...(loraSpec.boundCopies === undefined ? {} : { boundCopies: loraSpec.boundCopies }),
  keptPerToken: (spec, model) => loraSpec.keptPerToken?.(loraOf(spec), model) ?? 0,
  baseQuantisation: ({ bnb_4bit_quant_type, bnb_4bit_use_double_quant }) => ({ type: bnb_4bit_quant_type, doubleQuant: bnb_4bit_use_double_quant }),
};
