import type { JobKind } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import { runEval } from './eval/handler';
import { evalJob } from './eval/spec';
import { runFineTune } from './fine-tune/handler';
import { fineTuneJob } from './fine-tune/spec';
import type { JobContext, JobHandler, JobOutcome } from './runtime/job-context';
import type { JobSpec } from './runtime/job-spec';

export interface RegisteredJob {
  readonly schemaVersion: number;
  /** Checks the spec, runs the handler, checks its result. */
  run(context: JobContext<unknown>): Promise<JobOutcome<object>>;
}

/** What this engine can run: one line per kind. */
export const jobRegistry: Readonly<Record<JobKind, RegisteredJob>> = {
  [fineTuneJob.kind]: register(fineTuneJob, runFineTune),
  [evalJob.kind]: register(evalJob, runEval),
};

function register<Spec, Result extends object>(job: JobSpec<Spec, Result>, handler: JobHandler<Spec, Result>): RegisteredJob {
  return {
    schemaVersion: job.schemaVersion,
    run: async (context) => {
      const spec = job.spec.safeParse(context.spec);
      if (!spec.success) {
        const issue = spec.error.issues[0];
        const field = issue?.path.join('.') ?? '';
        throw new TunefleetError('invalid_input', `the ${job.kind} job's ${field || 'spec'} is not valid: ${issue?.message ?? 'unknown'}`, { reason: 'invalid_spec', param: field });
      }
      const outcome = await handler({ ...context, spec: spec.data });
      return outcome.type === 'stopped' ? outcome : { ...outcome, result: job.result.parse(outcome.result) };
    },
  };
}
