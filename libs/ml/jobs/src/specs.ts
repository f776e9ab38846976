/** TensorFlow-free half of the jobs library: what each kind needs and gives, for whoever plans, sends or records jobs. */
import { evalJob } from './eval/spec';
import { fineTuneJob } from './fine-tune/spec';

export type { JobSpec } from './runtime/job-spec';
export { evalJob } from './eval/spec';
export { fineTuneJob } from './fine-tune/spec';

/** Every job kind a worker can run; the handlers stand in `registry.ts` under the same names. */
export const jobSpecs = { [fineTuneJob.kind]: fineTuneJob, [evalJob.kind]: evalJob } as const;
