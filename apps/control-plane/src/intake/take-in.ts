import type { JobKind } from '@tunefleet/contracts';
import { errorMessage, isTunefleetError } from '@tunefleet/foundation';
import type { JobRecord } from '@tunefleet/ports';
import { checkEval } from './check-eval';
import { checkFineTune } from './check-fine-tune';
import type { IntakeDeps, JobCheck } from './intake-deps';
import { noteWaiting, sayOnce } from './messages';
import { lastFailure, userFailure } from './refusal';

const checks: Readonly<Record<JobKind, JobCheck>> = { 'fine-tune': checkFineTune, eval: checkEval };

/** How long a job waits for what is not its fault before it fails. */
const GIVE_UP_AFTER_MS = 10 * 60_000;
/** Where no model source answers: on a closed network none ever will, and whoever mistyped a name should not wait for long. */
const GIVE_UP_ON_MODEL_AFTER_MS = 30_000;

export type Outcome = 'admitted' | 'refused' | 'not_validating';

/**
 * Takes a job out of `validating_files`: into the queue, or to its end with a reason. The record alone decides what there is to do, and both
 * ends are conditional on the job still being unvalidated: doing this twice, or twice at once, gives one outcome.
 * @throws whatever may mend itself; the queue then tries again, until ten minutes after the first such error (half a minute for model sources)
 */
export async function takeIn(jobId: string, deps: IntakeDeps): Promise<Outcome> {
  const job = await deps.records.getJobForIntake(jobId);
  return job === null ? 'not_validating' : takeInJob(job, deps);
}

/** The same with the job as it was read, or has just been written. */
export async function takeInJob(job: JobRecord, deps: IntakeDeps): Promise<Outcome> {
  if (job.status !== 'validating_files') return 'not_validating';
  const { records, logger } = deps;
  const jobId = job.id;
  try {
    const { admission, notices } = await checks[job.kind](job, deps);
    if (!(await records.admitJob(jobId, admission))) return 'not_validating';
    for (const notice of notices) await sayOnce(records, jobId, 'warn', notice).catch((error: unknown) => logger.warn({ jobId, err: error }, 'a notice was lost'));
    logger.info({ jobId, kind: job.kind, totalSteps: admission.totalSteps, memoryBytes: admission.memoryBytesEstimate }, 'job admitted');
    return 'admitted';
  } catch (error) {
    if (deps.signal.aborted) throw error;
    const failure = userFailure(error) ?? (await failureAfterWaiting(error));
    if (failure === null) throw error;
    if (!(await records.refuseJob(jobId, failure))) return 'not_validating';
    logger.info({ jobId, kind: job.kind, class: failure.class, code: failure.code }, 'job refused');
    return 'refused';
  }

  async function failureAfterWaiting(error: unknown) {
    const nowMs = deps.clock.now();
    const reason = isTunefleetError(error) && error.code !== 'invariant' ? errorMessage(error) : 'The job could not be checked because of an internal error';
    const waitedMs = nowMs - (await noteWaiting(records, jobId, reason, nowMs));
    if (waitedMs < (isTunefleetError(error) && error.param !== undefined ? GIVE_UP_ON_MODEL_AFTER_MS : GIVE_UP_AFTER_MS)) return null;
    logger.error({ jobId, err: error, waitedMs }, 'a job could not be checked for so long that it is given up');
    return lastFailure(error, waitedMs);
  }
}
