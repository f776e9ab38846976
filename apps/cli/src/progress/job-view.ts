import type { JobEvent, JobStreamMessage, JobSummary } from '@tunefleet/contracts';
import { formatDuration, formatCount, clip, oneLine } from '../render/text';
import { waitingText } from '../render/waiting';
import { progressBar } from './progress-bar';
import { sparkline } from './sparkline';

/** Losses kept for the curve; beyond it neighbours are merged, so that a long job's curve still shows all of it. */
const LOSSES_MAX = 512;
const BAR_WIDTH = 30;

/** What a watcher knows of a job, from the messages so far. */
export interface JobView {
  readonly job: JobSummary | null;
  /** Training losses by step, thinned out. */
  readonly losses: readonly number[];
  /** Steps per kept loss. */
  readonly stride: number;
  readonly lastLoss: number | null;
  readonly lastStep: number;
  readonly validLoss: number | null;
  readonly ended: boolean;
}

export const emptyJobView: JobView = { job: null, losses: [], stride: 1, lastLoss: null, lastStep: -1, validLoss: null, ended: false };

/** The view after one more message. Metrics of a step seen before change nothing: after a reconnect the last step comes again. */
export function afterMessage(view: JobView, message: JobStreamMessage): JobView {
  switch (message.type) {
    case 'job':
      return { ...view, job: message.data };
    case 'metrics':
      return withMetrics(view, message.data.step, message.data.values);
    case 'end':
      return { ...view, ended: true };
    case 'event':
      return view;
  }
}

function withMetrics(view: JobView, step: number, values: Readonly<Record<string, number>>): JobView {
  const validLoss = values['valid_loss'] ?? view.validLoss;
  const loss = values['train_loss'];
  if (loss === undefined || step <= view.lastStep) return { ...view, validLoss };
  const grown = step % view.stride === 0 ? [...view.losses, loss] : view.losses;
  const full = grown.length >= LOSSES_MAX;
  return {
    ...view,
    validLoss,
    lastLoss: loss,
    lastStep: step,
    losses: full ? grown.filter((_, index) => index % 2 === 0) : grown,
    stride: full ? view.stride * 2 : view.stride,
  };
}

/** The live lines of a terminal: state, bar with figures, loss curve. */
export function liveLines(view: JobView, nowMs: number, columns: number): string[] {
  const { job } = view;
  if (job === null) return ['waiting for the server…'];
  const stopping = job.stop_requested === null ? '' : ` · being ${job.stop_requested}`;
  const head = `${job.id}  ${job.status}${job.phase !== null && job.status === 'running' ? ` · ${oneLine(job.phase)}` : ''}${stopping}`;
  if (job.status !== 'running') {
    const waiting = waitingText(job);
    return waiting === '' ? [head] : [head, clip(`waiting: ${waiting}`, columns - 1)];
  }
  const bar = progressBar(job.total_steps ? job.step / job.total_steps : 0, Math.max(8, Math.min(BAR_WIDTH, columns - 60)));
  const lines = [head, `${bar} ${figures(view, nowMs).join('  ')}`];
  if (view.losses.length > 1) lines.push(`loss ${sparkline(view.losses, Math.max(8, columns - 8))}`);
  return lines;
}

/** One plain line about where a running job is. */
export function progressLine(view: JobView, nowMs: number): string | null {
  return view.job === null ? null : `${view.job.phase ?? view.job.status}: ${figures(view, nowMs).join(', ')}`;
}

function figures(view: JobView, nowMs: number): string[] {
  const { job } = view;
  if (job === null) return [];
  const parts = [`${job.step}/${job.total_steps ?? '?'}`];
  if (view.lastLoss !== null) parts.push(`loss ${view.lastLoss.toFixed(4)}`);
  if (view.validLoss !== null) parts.push(`valid ${view.validLoss.toFixed(4)}`);
  if (job.tokens_per_second !== null && job.tokens_per_second > 0) parts.push(`${formatCount(job.tokens_per_second)} tok/s`);
  const left = job.estimated_finish === null ? null : job.estimated_finish - nowMs / 1000;
  if (left !== null && job.status === 'running') parts.push(`ETA ${formatDuration(Math.max(0, left))}`);
  return parts;
}

/** An event as a line; step metrics are shown as figures, not as events. */
export function eventLine(event: JobEvent): string | null {
  if (event.type === 'metrics') return null;
  return `${event.level === 'info' ? '' : `${event.level}: `}${oneLine(event.message)}`;
}

/** How a job ended, with what to do when it failed. */
export function endLines(job: JobSummary): string[] {
  const took = job.started_at !== null && job.finished_at !== null ? ` after ${formatDuration(job.finished_at - job.started_at)}` : '';
  const lines = [`${job.id} ${job.status}${took}`];
  if (job.error !== null) {
    lines.push(`${job.error.code}: ${oneLine(job.error.message)}`);
    lines.push(...job.error.log_tail.slice(-10).map((line) => `  | ${oneLine(line)}`));
  }
  return lines;
}
