import { isJobKind } from '@tunefleet/contracts';
import { errorCode, TunefleetError } from '@tunefleet/foundation';
import { jobRegistry } from './registry';
import type { JobContext, JobOutcome } from './runtime/job-context';

/**
 * Runs one job to its end.
 * @param context its spec as it came, checked here
 * @throws anything; `classifyFailure` says what it means. An end that was asked for is the outcome `stopped`, not an error.
 */
export async function runJob(kind: string, schemaVersion: number, context: JobContext<unknown>): Promise<JobOutcome<object>> {
  const job = isJobKind(kind) ? jobRegistry[kind] : undefined;
  if (job === undefined) throw unsupported(`this engine does not know the job kind "${kind}"; it knows ${Object.keys(jobRegistry).join(', ')}`);
  if (schemaVersion < 1 || schemaVersion > job.schemaVersion) {
    throw unsupported(`the ${kind} job is written in version ${schemaVersion} of its schema, this engine reads versions up to ${job.schemaVersion}; run the same release everywhere`);
  }
  try {
    return await job.run(context);
  } catch (error) {
    const { wanted, signal } = context.stop;
    if (wanted !== null && (errorCode(error) === 'cancelled' || error === signal.reason)) return { type: 'stopped' };
    throw error;
  }
}

/** Another worker of the right release may take it, so the job itself is not to blame. */
function unsupported(message: string): TunefleetError {
  return new TunefleetError('unavailable', message, { reason: 'job_not_supported' });
}
