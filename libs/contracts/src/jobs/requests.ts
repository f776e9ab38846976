import { z } from 'zod';
import { dpoHyperparametersSchema } from '../openai/fine-tuning';
import { baseQuantisationSchema, evalMetricSchema } from './eval';
import { tunerSpecSchema } from './fine-tune';

// What `Job.spec` holds: a request as the API accepted it. Intake turns it into the worker's spec (`fineTuneSpecSchema`, `evalSpecSchema`)
// and, when it admits the job, writes it back with every `auto` and null resolved that it has settled.

export const fineTuneRequestSchema = z.object({
  /** As the user wrote it: a base model's id, or the name of a tuned model to go on from. */
  model: z.string().min(1),
  /** The name the tuned model will have, `ft:…`; settled when the job is created. */
  fineTunedModel: z.string().min(1),
  trainingFile: z.string().min(1),
  validationFile: z.string().min(1).nullable(),
  suffix: z.string().nullable(),
  seed: z.int().min(0).max(2_147_483_647),
  /** Absent: supervised. */
  method: z.enum(['dpo', 'pretraining']).optional(),
  /** `beta` with the method dpo only. */
  hyperparameters: dpoHyperparametersSchema,
  tuner: tunerSpecSchema,
  maxSequenceLength: z.int().nullable(),
  computeDtype: z.enum(['auto', 'f32', 'bf16']),
  /** False: it shares its worker with no other job. Absent: as the team has it. */
  share: z.boolean().optional(),
  /** What the request left open, before it was settled: a copy of the job leaves it open again. Absent in jobs of older versions. */
  asked: z
    .object({ hyperparameters: dpoHyperparametersSchema, tuner: tunerSpecSchema.nullable(), maxSequenceLength: z.int().nullable() })
    .optional(),
  /** SHA-256 of the request body, to know a repeated one. */
  requestHash: z.string(),
});
export type FineTuneRequest = z.infer<typeof fineTuneRequestSchema>;

export const evalRequestSchema = z.object({
  model: z.string().min(1),
  compareTo: z.array(z.string().min(1)).max(7),
  file: z.string().min(1),
  metric: evalMetricSchema,
  limit: z.int().min(1).nullable(),
  samples: z.int().min(0),
  maxSequenceLength: z.int().nullable(),
  computeDtype: z.enum(['auto', 'f32', 'bf16']),
  /** Absent: as the base is published. */
  baseQuantisation: baseQuantisationSchema.optional(),
  requestHash: z.string(),
});
export type EvalRequest = z.infer<typeof evalRequestSchema>;
