import { evalResultSchema, evalSpecSchema } from './eval';
import { fineTuneResultSchema, fineTuneSpecSchema } from './fine-tune';
import type { FineTuneRequest } from './requests';

export * from './artifact';
export * from './eval';
export * from './fine-tune';
export * from './requests';

/** Job kinds with what a worker gets and what it gives back. One line here adds a kind to every layer that passes jobs on. */
export const jobKinds = {
  'fine-tune': { schemaVersion: 3, queue: 'tune', spec: fineTuneSpecSchema, result: fineTuneResultSchema },
  eval: { schemaVersion: 2, queue: 'eval', spec: evalSpecSchema, result: evalResultSchema },
} as const;

/**
 * The version a job is written in: the oldest that says all of it, so that workers of an older release still run what they know. A worker takes every
 * version up to its own.
 */
export function schemaVersionOf(kind: JobKind, request: object): number {
  if (kind === 'eval') return 'baseQuantisation' in request ? 2 : 1;
  const { method, hyperparameters } = request as Partial<FineTuneRequest>;
  if (hyperparameters?.neftune_noise_alpha) return 3;
  return method === undefined ? 1 : 2;
}

export type JobKind = keyof typeof jobKinds;
export type QueueName = (typeof jobKinds)[JobKind]['queue'];

export function isJobKind(kind: string): kind is JobKind {
  return Object.hasOwn(jobKinds, kind);
}
