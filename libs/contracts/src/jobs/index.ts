import { evalResultSchema, evalSpecSchema } from './eval';
import { fineTuneResultSchema, fineTuneSpecSchema } from './fine-tune';

export * from './artifact';
export * from './eval';
export * from './fine-tune';
export * from './requests';

/** Job kinds with what a worker gets and what it gives back. One line here adds a kind to every layer that passes jobs on. */
export const jobKinds = {
  'fine-tune': { schemaVersion: 1, queue: 'tune', spec: fineTuneSpecSchema, result: fineTuneResultSchema },
  eval: { schemaVersion: 1, queue: 'eval', spec: evalSpecSchema, result: evalResultSchema },
} as const;

export type JobKind = keyof typeof jobKinds;
export type QueueName = (typeof jobKinds)[JobKind]['queue'];

export function isJobKind(kind: string): kind is JobKind {
  return Object.hasOwn(jobKinds, kind);
}
