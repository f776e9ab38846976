import { evalRequestSchema, evalResultSchema, type EvalJob } from '@tunefleet/contracts';
import { invariant } from '@tunefleet/foundation';
import type { JobRecord } from '@tunefleet/ports';
import { unixSeconds, unixSecondsOrNull } from '../http/time';
import { waitingView } from '../jobs/waiting-view';
import { jobErrorView } from './views';

export function evalView(job: JobRecord): EvalJob {
  const request = evalRequestSchema.safeParse(job.spec);
  invariant(request.success, `the record of job ${job.id} does not hold an eval request`);
  const { model, compareTo, file, metric, limit, samples, maxSequenceLength } = request.data;
  return {
    id: job.id,
    object: 'eval_job',
    created_at: unixSeconds(job.createdAt),
    started_at: unixSecondsOrNull(job.startedAt),
    finished_at: unixSecondsOrNull(job.finishedAt),
    status: job.status,
    base_model: job.baseModel,
    model,
    compare_to: compareTo,
    file,
    metric,
    limit,
    samples,
    max_seq_length: maxSequenceLength,
    priority: job.priority,
    metadata: job.metadata === null ? null : { ...job.metadata },
    step: job.step,
    total_steps: job.totalSteps,
    phase: job.phase,
    ...waitingView(job),
    worker_selector: { ...job.workerSelector },
    after: [...job.afterJobIds],
    stop_requested: job.stopReason,
    error: jobErrorView(job.error),
    result: job.result === null ? null : evalResultSchema.parse(job.result),
    result_files: [...job.resultFileIds],
  };
}
