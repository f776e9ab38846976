import { z } from 'zod';
import { patternProblem } from '../matching/python-pattern';
import { refusalOf } from '../spec-refusal';
import type { TunerSpecHalf } from '../tuner-spec';
import { virtualTokenCount } from '../virtual-tokens/fields';
import { matchBlocks } from './match';

const position = z.union([z.int().min(0).max(100), z.string().min(1).max(200)]);

/** The fields of SWIFT's Prompt, spelled and defaulted as there but where it has no usable default. @see Jia et al. 2022, arXiv:2203.12119 */
export const deepPromptTuningSpecSchema = z
  .strictObject({
    kind: z.literal('deep-prompt-tuning'),
    /** Width of the model; null: taken from it. A list: one per block. */
    dim: z.union([z.int().min(1), z.array(z.int().min(1)).min(1)]).nullish().transform((value) => value ?? null),
    /** Blocks, by a regular expression for whole paths or a list of path endings; null: all. */
    target_modules: z.union([z.string().min(1).max(1000), z.array(z.string().min(1).max(500)).min(1)]).nullish().transform((value) => value ?? null),
    prompt_length: virtualTokenCount.default(16),
    attach_front: z.literal(true, { error: 'must be true: behind the text no token of a causal model would see the virtual tokens' }).default(true),
    extract_embedding: z.literal(false, { error: 'must be false: a block that cuts its virtual tokens off leaves none for the next one, which would overwrite real tokens' }).default(false),
    /** For SWIFT, which finds a block's arguments by these: where its hidden states are, and its mask. */
    embedding_pos: position.default(0),
    attention_mask_pos: position.nullish().transform((value) => value ?? null),
    attention_mask_value: z.union([z.number(), z.boolean()]).default(0),
  })
  .superRefine(({ target_modules }, context) => {
    const problem = typeof target_modules === 'string' ? patternProblem(target_modules) : null;
    if (problem !== null) context.addIssue({ code: 'custom', path: ['target_modules'], message: problem });
  });
export type DeepPromptTuningSpec = z.infer<typeof deepPromptTuningSpecSchema>;

export const deepPromptTuningSpec: TunerSpecHalf<DeepPromptTuningSpec> = {
  title: 'Deep prompt tuning',
  summary: 'virtual tokens that are new in every block; SWIFT calls it Prompt',
  // Hidden states are larger than embeddings, and there is no reference for decoders; that of prefix tuning, which acts alike.
  learningRate: 1e-2,
  shapeKey: ({ prompt_length: n }) => `deep-prompt-tuning-${n}`,
  freeFields: ['embedding_pos', 'attention_mask_pos', 'attention_mask_value'],
  parse(fields) {
    const parsed = deepPromptTuningSpecSchema.safeParse(fields);
    if (parsed.success) return parsed.data;
    throw refusalOf(parsed.error, Object.keys(deepPromptTuningSpecSchema.shape), 'deep prompt tuning');
  },
  virtualTokens: ({ prompt_length: n }) => n,
  countParameters: (spec, model) => matchBlocks(spec, model).length * spec.prompt_length * model.hiddenSize,
};
