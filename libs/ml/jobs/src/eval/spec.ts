import { jobKinds, type EvalResult, type EvalSpec } from '@tunefleet/contracts';
import type { JobSpec } from '../runtime/job-spec';

export const evalJob = {
  kind: 'eval',
  schemaVersion: jobKinds.eval.schemaVersion,
  spec: jobKinds.eval.spec,
  result: jobKinds.eval.result,
  inputs: (spec: EvalSpec) => [spec.file, ...spec.candidates.flatMap((candidate) => candidate.adapter ?? [])],
} as const satisfies JobSpec<EvalSpec, EvalResult>;
