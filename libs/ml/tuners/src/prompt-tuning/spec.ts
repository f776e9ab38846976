import { z } from 'zod';
import { badField } from '../spec-refusal';
import type { TunerSpecHalf } from '../tuner-spec';
import { numVirtualTokens, parsePromptFields } from '../virtual-tokens/fields';

/** Prompt tuning's fields, spelled and defaulted as in PEFT, but for the number of tokens, which has no default there. @see Lester et al. 2021, arXiv:2104.08691 */
export const promptTuningSpecSchema = z.strictObject({
  kind: z.literal('prompt-tuning'),
  num_virtual_tokens: numVirtualTokens,
  /** RANDOM: normal with deviation 1; SAMPLE_VOCAB: embeddings of random tokens; TEXT: of a text, cut or repeated to length. */
  prompt_tuning_init: z.enum(['RANDOM', 'SAMPLE_VOCAB', 'TEXT'], { error: 'must be "RANDOM", "SAMPLE_VOCAB" or "TEXT"' }).default('RANDOM'),
  prompt_tuning_init_text: z.string().min(1).max(100_000).nullish().transform((value) => value ?? null),
});
export type PromptTuningSpec = z.infer<typeof promptTuningSpecSchema>;

export const promptTuningSpec: TunerSpecHalf<PromptTuningSpec> = {
  title: 'Prompt tuning',
  summary: 'embeddings of virtual tokens before every text; the fewest numbers of all, for models that are large or nearly know the task',
  // As in PEFT's examples of prompt tuning for causal models.
  learningRate: 3e-2,
  shapeKey: ({ num_virtual_tokens: n }) => `prompt-tuning-${n}`,
  freeFields: ['prompt_tuning_init', 'prompt_tuning_init_text'],
  parse(fields) {
    const spec = parsePromptFields(promptTuningSpecSchema, fields, 'prompt tuning');
    const { prompt_tuning_init: init, prompt_tuning_init_text: text } = spec;
    if (init === 'TEXT' && text === null) throw badField('prompt_tuning_init_text', 'is needed with prompt_tuning_init "TEXT": the text to start from');
    if (init !== 'TEXT' && text !== null) throw badField('prompt_tuning_init_text', `is used with prompt_tuning_init "TEXT" only, which is "${init}"; leave one of them out`);
    return spec;
  },
  virtualTokens: ({ num_virtual_tokens: n }) => n,
  countParameters: ({ num_virtual_tokens: n }, { hiddenSize }) => n * hiddenSize,
};
