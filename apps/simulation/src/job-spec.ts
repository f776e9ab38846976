import type { JsonObject } from '@tunefleet/foundation';

/** What a simulated job does, carried in its worker spec where the engine finds it. */
export interface JobBehaviour {
  readonly steps: number;
  readonly stepMs: number;
  readonly checkpointEvery: number;
  /** `oom`: the first pass kills the engine unless the micro-batch was lowered; `oom_always`: however small it is. */
  readonly fate: 'succeeds' | 'user_error' | 'oom' | 'oom_always';
}

export const BATCH_SIZE = 8;

export function workerSpecOf(model: string, behaviour: JobBehaviour): JsonObject {
  return {
    base: { id: model, revision: 'r1' },
    tuner: { kind: 'lora' },
    trainingFile: { name: 'train.jsonl', sha256: '1'.repeat(64), bytes: 1000 },
    batchSize: BATCH_SIZE,
    behaviour: { ...behaviour },
  };
}

/** @param spec as the engine gets it */
export function behaviourOf(spec: Readonly<Record<string, unknown>>): JobBehaviour & { readonly microBatchSize: number; readonly model: string } {
  const base = spec['base'] as { id: string; revision: string };
  return { ...(spec['behaviour'] as JobBehaviour), microBatchSize: (spec['microBatchSize'] as number | undefined) ?? BATCH_SIZE, model: `${base.id}@${base.revision}` };
}
