import { z } from 'zod';

/** Why a queued job waits, the most fundamental first: of several only the first is told. The sentence to it is for people. */
export const waitingCodeSchema = z.enum([
  /** For other jobs to succeed. */
  'after_jobs',
  /** It asks for labels that no worker on record has. */
  'misconfigured',
  'exceeds_every_worker',
  'quota',
  'after_failure',
  'no_fitting_worker',
  'workers_busy',
  /** It passes free workers by for a while, for one that holds its base model. */
  'model_locality',
  /** A worker is being freed for it. */
  'preemption_pending',
]);
export type WaitingCode = z.infer<typeof waitingCodeSchema>;
