import type { Company, JobDetail } from '@tunefleet/contracts';
import { renderFields, renderTable } from '../render/table';
import { waitingText } from '../render/waiting';
import { formatBytes, formatCount, formatTime, oneLine } from '../render/text';

type AttemptView = JobDetail['attempts'][number];

/** All that is on record about a job, as text: fields, result, why it failed with the last lines of its log, and its attempts. */
export function describeJob(job: JobDetail): string {
  const fields = renderFields([
    ['id', job.id],
    ['kind', job.kind],
    ['status', job.stop_requested === null ? job.status : `${job.status}, to be ${job.stop_requested}`],
    ['waiting', waitingText(job)],
    ['model', job.base_model],
    ['priority', String(job.priority)],
    ['worker labels', Object.entries(job.worker_selector).map((pair) => pair.join('=')).join(', ')],
    ['after', job.after.join(', ')],
    ['made from', job.source === null ? null : `${job.source.job_id} (${job.source.relation})`],
    ['step', `${job.step}/${job.total_steps ?? '?'}`],
    ['tokens/s', job.tokens_per_second === null ? null : formatCount(job.tokens_per_second)],
    ['memory needed', job.memory_bytes_estimate === null ? null : formatBytes(job.memory_bytes_estimate)],
    ['worker', job.may_share_worker === null ? null : job.may_share_worker ? 'may be shared' : 'to itself'],
    ['beside it now', companyText(job.shares_worker_with)],
    ['created', formatTime(job.created_at)],
    ['started', formatTime(job.started_at)],
    ['finished', formatTime(job.finished_at)],
    ['adapter', job.adapter_id],
    ['result files', job.result_files.join(', ')],
  ]);
  return [fields, ...describeResult(job), ...describeError(job), ...describeAttempts(job.attempts)].join('\n\n');
}

function describeResult({ result }: JobDetail): string[] {
  return result === null ? [] : [`result\n${renderFields(Object.entries(result).map(([name, value]) => [`  ${name}`, showValue(value)] as const))}`];
}

function describeError({ error }: JobDetail): string[] {
  if (error === null) return [];
  const facts = renderFields([
    ['  class', error.class],
    ['  code', error.code],
    ['  message', oneLine(error.message)],
    ['  param', error.param],
  ]);
  return [['error', facts, ...error.log_tail.map((line) => `  | ${oneLine(line)}`)].join('\n')];
}

function describeAttempts(attempts: readonly AttemptView[]): string[] {
  if (attempts.length === 0) return [];
  return [
    renderTable(
      [
        { header: 'attempt', value: (attempt) => String(attempt.epoch) },
        { header: 'worker', value: (attempt) => attempt.worker_name },
        { header: 'outcome', value: outcomeOf },
        { header: 'step', value: (attempt) => String(attempt.step), align: 'right' },
        { header: 'started', value: (attempt) => formatTime(attempt.assigned_at) },
        { header: 'ended', value: (attempt) => formatTime(attempt.finished_at) },
        { header: 'GPU seconds', value: (attempt) => attempt.gpu_seconds.toFixed(0), align: 'right' },
        { header: 'beside it', value: (attempt) => companyText(attempt.shared_worker_with) ?? '' },
        { header: 'error', value: (attempt) => (attempt.error === null ? '' : `${attempt.error.class}/${attempt.error.code}: ${oneLine(attempt.error.message)}`) },
      ],
      attempts,
    ),
  ];
}

/** Null: nobody. */
function companyText({ jobs, other_teams_jobs: others }: Company): string | null {
  const ofOthers = others === 0 ? [] : [`${others} of other teams`];
  return jobs.length + others === 0 ? null : [...jobs, ...ofOthers].join(', ');
}

function outcomeOf({ outcome, status, stop_reason, stuck }: AttemptView): string {
  const word = outcome ?? status;
  if (stop_reason !== null) return `${word} (${stop_reason})`;
  return stuck && outcome === null ? `${word}, stuck` : word;
}

function showValue(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}
