import { jobKinds, type FineTuneResult, type FineTuneSpec } from '@tunefleet/contracts';
import type { JobSpec } from '../runtime/job-spec';

export const fineTuneJob = {
  kind: 'fine-tune',
  schemaVersion: jobKinds['fine-tune'].schemaVersion,
  spec: jobKinds['fine-tune'].spec,
  result: jobKinds['fine-tune'].result,
  inputs: (spec: FineTuneSpec) => [spec.trainingFile, ...(spec.validationFile ? [spec.validationFile] : []), ...(spec.startAdapter ?? [])],
} as const satisfies JobSpec<FineTuneSpec, FineTuneResult>;
