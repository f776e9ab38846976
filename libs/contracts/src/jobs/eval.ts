import { z } from 'zod';
import { artifactListSchema, artifactRefSchema } from './artifact';
import { baseModelRefSchema } from './fine-tune';

/** How a row's answer is judged. Rows are chat or prompt/completion rows; the last assistant turn (or completion) is the reference. */
export const evalMetricSchema = z.discriminatedUnion('type', [
  /** The label with the highest log-likelihood as the next assistant turn must be the reference. */
  z.object({
    type: z.literal('label_likelihood'),
    labels: z.array(z.string().min(1).max(200)).min(2).max(64),
    /** `none`: total log-likelihood; `tokens`: divided by the number of the label's tokens. */
    normalise: z.enum(['none', 'tokens']).default('none'),
  }),
  /** Greedy generation, white space trimmed, must equal the reference. */
  z.object({
    type: z.literal('exact_match'),
    max_tokens: z.int().min(1).max(4096).default(64),
    ignore_case: z.boolean().default(false),
  }),
]);
export type EvalMetric = z.infer<typeof evalMetricSchema>;

/** One side of a comparison: a base model, with or without an adapter (a PEFT folder). */
export const evalCandidateSchema = z.object({
  /** The callable name as users know it. */
  model: z.string().min(1).max(400),
  adapter: artifactListSchema.optional(),
});
export type EvalCandidate = z.infer<typeof evalCandidateSchema>;

/** How a base's linear maps are stored: in 4 bits, and the scales of their blocks in 8 (`doubleQuant`) or in full. */
export const baseQuantisationSchema = z.object({ type: z.enum(['nf4', 'fp4']), doubleQuant: z.boolean() });

export const evalSpecSchema = z.object({
  base: baseModelRefSchema,
  /** All share the base; scored on the same rows. */
  candidates: z.array(evalCandidateSchema).min(1).max(8),
  file: artifactRefSchema,
  metric: evalMetricSchema,
  /** First rows of the file; absent: all. */
  limit: z.int().min(1).optional(),
  /** Greedy free text is generated for this many first rows, for people to look at. */
  samples: z.int().min(0).max(100).default(0),
  maxSequenceLength: z.int().min(8).max(131072),
  computeDtype: z.enum(['auto', 'f32', 'bf16']).default('auto'),
  /** Absent: as the base is published. Present from schema version 2 on. */
  baseQuantisation: baseQuantisationSchema.optional(),
});
export type EvalSpec = z.infer<typeof evalSpecSchema>;

export const evalCandidateResultSchema = z.object({
  model: z.string(),
  n: z.int().min(0),
  correct: z.int().min(0),
  accuracy: z.number(),
  /** Wilson score interval, 95 %. */
  interval: z.tuple([z.number(), z.number()]),
});

export const evalResultSchema = z.object({
  metric: z.string(),
  candidates: z.array(evalCandidateResultSchema).min(1),
  /** First candidate against the last: McNemar's exact test on the rows where they differ. */
  comparison: z
    .object({ onlyFirstCorrect: z.int(), onlyLastCorrect: z.int(), pValue: z.number() })
    .nullable(),
  seconds: z.number(),
  peakRssBytes: z.int().min(0),
});
export type EvalResult = z.infer<typeof evalResultSchema>;

/** One line of the eval's result file `items.jsonl`. */
export const evalItemSchema = z.object({
  row: z.int().min(1),
  reference: z.string(),
  outputs: z.array(
    z.object({
      model: z.string(),
      prediction: z.string(),
      correct: z.boolean(),
      /** Log-likelihood per label, in the metric's order. */
      scores: z.array(z.number()).optional(),
      /** Greedy free text, for the first `samples` rows. */
      sample: z.string().optional(),
    }),
  ),
});
export type EvalItem = z.infer<typeof evalItemSchema>;
