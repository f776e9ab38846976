import type { ArtifactRef, JobKind } from '@tunefleet/contracts';
import type { z } from 'zod';

/** What is known of a job kind without running it. */
export interface JobSpec<Spec, Result> {
  readonly kind: JobKind;
  readonly schemaVersion: number;
  readonly spec: z.ZodType<Spec>;
  readonly result: z.ZodType<Result>;
  /** Input artifacts a worker must have locally before it starts. */
  inputs(spec: Spec): readonly ArtifactRef[];
}
