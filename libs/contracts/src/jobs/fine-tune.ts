import { z } from 'zod';
import { artifactListSchema, artifactRefSchema } from './artifact';

/** Which weights to start from: `id` as users write it, `revision` pinned at submit. */
export const baseModelRefSchema = z.object({
  id: z.string().min(1).max(300),
  revision: z.string().min(1).max(100),
});
export type BaseModelRef = z.infer<typeof baseModelRefSchema>;

/** A tuner by name with its own fields, checked by that tuner's schema in `ml/tuners/specs`. */
export const tunerSpecSchema = z.object({ kind: z.string().min(1).max(40) }).catchall(z.unknown());

/**
 * What is minimised. `dpo`: direct preference optimisation on preference rows, held by `beta` to the policy the run starts from (the base model, or the start
 * adapter). `pretraining`: every token of plain-text rows.
 */
export const objectiveSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('supervised') }),
  z.object({ type: z.literal('dpo'), beta: z.number().positive().max(2) }),
  z.object({ type: z.literal('pretraining') }),
]);
export type ObjectiveSpec = z.infer<typeof objectiveSchema>;

/**
 * What a worker needs to run a fine-tune job; every default is resolved, so that the record says exactly what ran.
 * Files are artifacts: the worker fetches them by hash.
 */
export const fineTuneSpecSchema = z.object({
  base: baseModelRefSchema,
  /** Continue from this adapter (its PEFT folder); absent for a fresh one. */
  startAdapter: artifactListSchema.optional(),
  trainingFile: artifactRefSchema,
  validationFile: artifactRefSchema.optional(),
  tuner: tunerSpecSchema,
  /** Absent: supervised. Present from schema version 2 on, so that an older worker refuses the job rather than run another. */
  objective: objectiveSchema.optional(),
  /** Dtype of frozen weights and matmuls; `auto` is settled by the first worker and kept in its checkpoints. */
  computeDtype: z.enum(['auto', 'f32', 'bf16']).default('auto'),
  seed: z.int().min(0).max(2147483647),
  epochs: z.int().min(1).max(50),
  /** Examples per optimiser step. */
  batchSize: z.int().min(1).max(256),
  /** Examples per forward pass; the worker may lower it to fit memory. Absent: the worker chooses. */
  microBatchSize: z.int().min(1).max(256).optional(),
  maxSequenceLength: z.int().min(8).max(131072),
  learningRate: z.number().positive().max(1),
  schedule: z.enum(['cosine', 'linear', 'constant']).default('cosine'),
  warmupRatio: z.number().min(0).max(0.5).default(0.03),
  weightDecay: z.number().min(0).max(1).default(0),
  maxGradNorm: z.number().positive().max(1000).default(1),
  /** NEFTune: alpha of the noise on token embeddings in training; absent: none. From schema version 3 on. @see arXiv:2310.05914 */
  neftuneNoiseAlpha: z.number().positive().max(1000).optional(),
  /** Optimiser steps between checkpoints; one is also written at the end of every epoch. 0: epochs only. */
  checkpointEverySteps: z.int().min(0).default(0),
  /** Optimiser steps between validation passes; one is also made at the end of every epoch. 0: epochs only. */
  validateEverySteps: z.int().min(0).default(0),
});
export type FineTuneSpec = z.infer<typeof fineTuneSpecSchema>;

export const fineTuneResultSchema = z.object({
  steps: z.int().min(0),
  /** Tokens fed to the model, padding left out, over all epochs. */
  trainedTokens: z.int().min(0),
  /** Tokens that carried loss. */
  lossTokens: z.int().min(0),
  lossFirst: z.number(),
  lossLast: z.number(),
  validLoss: z.number().nullable(),
  tokensPerSecond: z.number(),
  /** Wall time of the training loop of the last attempt, seconds. */
  trainSeconds: z.number(),
  peakRssBytes: z.int().min(0),
  /** Of the training loop, model included; 0: other runs shared the device, so nobody can tell. */
  peakDeviceBytes: z.int().min(0),
  /** What was foretold of it before the first step; results of earlier versions lack it. */
  predictedDeviceBytes: z.int().min(0).optional(),
  computeDtype: z.enum(['f32', 'bf16']),
  trainableParameters: z.int().min(0),
});
export type FineTuneResult = z.infer<typeof fineTuneResultSchema>;
