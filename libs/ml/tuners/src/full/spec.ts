import { z } from 'zod';
import { slotsCount } from '../named-parameters/parameter-slots';
import { refusalOf } from '../spec-refusal';
import type { TunerSpecHalf } from '../tuner-spec';
import { planFull } from './plan';

const orUsual = z.boolean().nullish().transform((value) => value ?? null);

/** Which of the model's own weights are trained. */
export const fullSpecSchema = z
  .strictObject({
    kind: z.literal('full'),
    /** How many blocks, counted from the last; nothing below them is trained. null: all, and the embeddings. */
    last_blocks: z.int().min(1).max(1024).nullish().transform((value) => value ?? null),
    /** Token embeddings, and learned positions; null: with all blocks. */
    train_embeddings: orUsual,
    /** null: yes, but where the head is the embedding table, as that. */
    train_head: orUsual,
    /** Those of the blocks that are trained, and the final one. */
    train_norms: z.boolean().default(true),
  })
  .superRefine(({ last_blocks, train_embeddings }, context) => {
    if (last_blocks !== null && train_embeddings) context.addIssue({ code: 'custom', path: ['train_embeddings'], message: 'lies below the last blocks: leave it out, or leave last_blocks out' });
  });
export type FullSpec = z.infer<typeof fullSpecSchema>;

export const fullSpec: TunerSpecHalf<FullSpec> = {
  title: 'Full fine-tuning',
  summary: "the model's own weights, all of them or the last blocks; learns most and takes the most memory",
  // As Stanford Alpaca and many after it.
  learningRate: 2e-5,
  shapeKey: ({ last_blocks }) => (last_blocks === null ? 'full' : `full-last-${last_blocks}`),
  freeFields: [],
  parse(fields) {
    const parsed = fullSpecSchema.safeParse(fields);
    if (parsed.success) return parsed.data;
    throw refusalOf(parsed.error, Object.keys(fullSpecSchema.shape), 'full fine-tuning');
  },
  countParameters: (spec, model) => slotsCount(planFull(spec, model).weights),
  untouchedBlocks: (spec, model) => planFull(spec, model).firstBlock,
  trainedTables(spec, model) {
    const { embeddings, head } = planFull(spec, model).trains;
    return { embedding: embeddings, head };
  },
};
