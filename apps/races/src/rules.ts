import { isTerminal, jobTransitions, type JobStatus } from '@tunefleet/domain-jobs';
import type { AttemptKey } from '@tunefleet/ports';
import type { Change, Row, Side } from './journal';
import { DONE, type Said } from './operations';
import { valueOf, type Scene } from './scene';
import { brokenSharing } from './sharing-rules';

/** What one side did and was told. */
export interface Told {
  readonly side: Side;
  readonly operation: string;
  readonly said: Said;
  readonly of?: AttemptKey;
  readonly made?: string;
  /** Whom what it made may run beside. */
  readonly besideJobIds?: readonly string[];
}

/** The rows of the job and its surroundings when all is over. */
export interface Outcome {
  readonly jobs: readonly Row[];
  readonly attempts: readonly Row[];
  readonly metrics: readonly Row[];
  readonly events: readonly Row[];
  readonly adapters: readonly Row[];
  readonly workers: readonly Row[];
}

/** @returns what is wrong, or nothing    @param changes in order    @param outcome afterwards */
export function brokenRules(scene: Scene, told: readonly Told[], changes: readonly Change[], outcome: Outcome): string[] {
  return [...onTheWay(scene, changes), ...brokenSharing(told, changes, outcome), ...told.flatMap((one) => wasToldRight(scene, one, changes, outcome)), ...inTheEnd(scene, told, changes, outcome)];
}

/** Rules for each write. */
function onTheWay(scene: Scene, changes: readonly Change[]): string[] {
  const broken: string[] = [];
  const jobs = new Map<unknown, { status: string; epoch: number }>();
  for (const { table, before, after, side } of changes) {
    const at = `${table} ${String(after['id'] ?? '')} by ${side}`;
    if (table === 'job') {
      if (before !== null) {
        const [from, to] = [before['status'] as JobStatus, after['status'] as JobStatus];
        if (isTerminal(from) && (from !== to || before['epoch'] !== after['epoch'])) broken.push(`${at}: had ${from} and was changed to ${to}`);
        if (from !== to && !Object.values(jobTransitions[from]).includes(to)) broken.push(`${at}: went from ${from} to ${to}, which no rule allows`);
        if (num(after['epoch']) < num(before['epoch'])) broken.push(`${at}: its epoch fell from ${num(before['epoch'])} to ${num(after['epoch'])}`);
      }
      jobs.set(after['id'], { status: after['status'] as string, epoch: num(after['epoch']) });
    }
    if (table === 'attempt') {
      if (before?.['status'] === 'finished') broken.push(`${at}: had finished and was changed`);
      if (before !== null && num(after['last_seq']) < num(before['last_seq'])) broken.push(`${at}: its events went back from ${num(before['last_seq'])} to ${num(after['last_seq'])}`);
      if (before !== null && ['job_id', 'epoch', 'worker_id', 'worker_boot_id'].some((column) => before[column] !== after[column])) broken.push(`${at}: became another attempt`);
      if (before === null && after['job_id'] === scene.jobId && num(after['epoch']) <= scene.epoch) broken.push(`${at}: has the epoch ${num(after['epoch'])} where the job had ${scene.epoch}`);
    }
    if ((table === 'metric_point' || table === 'checkpoint') && after['job_id'] === scene.jobId) {
      const job = jobs.get(scene.jobId) ?? { status: statusOf(scene), epoch: scene.epoch };
      if (job.status !== 'running' || job.epoch !== after['epoch']) broken.push(`${at}: step ${num(after['step'])} of epoch ${num(after['epoch'])} was stored when the job was ${job.status} in epoch ${job.epoch}`);
    }
    if (table === 'worker' && num(after['credit']) < 0) broken.push(`${at}: has a credit of ${num(after['credit'])}`);
  }
  return broken;
}

/** Rules for what each side was told: losers wrote nothing, winners what they said. */
function wasToldRight(scene: Scene, { side, operation, said, of, made }: Told, changes: readonly Change[], { jobs, attempts }: Outcome): string[] {
  const who = `${operation} (${side})`;
  const own = changes.filter((change) => change.side === side);
  const broken: string[] = [];
  // The record keeps how an attempt ended, not what was said of it: the same end told again is taken for a repeat.
  const isRepeat = operation === 'hand back' && own.length === 0;
  if (of !== undefined && said !== 'stale' && !isRepeat && (of.attemptId === scene.zombie?.attemptId || scene.start === 'cancelled')) broken.push(`${who}: was ${said} for epoch ${of.epoch}, which was over`);
  if (said !== 'applied') {
    const written = own.filter(({ table, before, after }) => !isClosing(table, before, after, of) && !(table === 'team_usage' && of !== undefined));
    for (const { table, after } of written) broken.push(`${who}: was told ${said} and wrote ${table} ${String(after['id'] ?? '')}`);
    return broken;
  }
  const attempt = attempts.find(({ id }) => id === of?.attemptId);
  const job = jobs.find(({ id }) => id === scene.jobId);
  const expected: Readonly<Record<string, boolean>> = {
    complete: attempt?.['outcome'] === 'succeeded' && job?.['status'] === 'succeeded',
    fail: attempt?.['outcome'] === 'failed' && job?.['status'] === 'failed',
    'hand back': attempt?.['outcome'] === 'stopped',
    expire: attempt?.['outcome'] === 'lost',
    revoke: attempt?.['outcome'] === 'revoked',
    renew: own.some(({ table, after }) => table === 'attempt' && after['id'] === of?.attemptId),
    report: num(attempt?.['last_seq']) >= scene.lastSeq + 3 + 1,
    cancel: job?.['status'] === 'cancelled',
    assign: attempts.some(({ id }) => id === made),
    join: attempts.some(({ id }) => id === made),
    preempt: own.some(({ table, after }) => table === 'attempt' && after['preempted_for_job_id'] === scene.otherJobId) || attempt?.['stop_reason'] !== null,
    depend: jobs.some(({ id }) => id === made),
  };
  if (expected[operation] === false) broken.push(`${who}: was told applied, and the record does not show it`);
  return broken;
}

/** Rules for the rows when all is over. */
function inTheEnd(scene: Scene, told: readonly Told[], changes: readonly Change[], { jobs, attempts, metrics, events, adapters, workers }: Outcome): string[] {
  const broken: string[] = [];
  const live = attempts.filter(({ status }) => status !== 'finished');
  const holders = { job: live.map((attempt) => attempt['job_id']), slot: live.map((attempt) => `${String(attempt['worker_id'])} ${num(attempt['slot'])}`) };
  for (const [what, held] of Object.entries(holders)) if (new Set(held).size !== held.length) broken.push(`two open attempts of one ${what}`);
  for (const job of jobs) {
    const { id, status, epoch } = job;
    const own = attempts.filter((attempt) => attempt['job_id'] === id);
    if (new Set(own.map((attempt) => attempt['epoch'])).size !== own.length) broken.push(`${String(id)}: two attempts of one epoch`);
    if (own.some((attempt) => num(attempt['epoch']) > num(epoch))) broken.push(`${String(id)}: an attempt beyond its epoch`);
    const isHeld = own.some((attempt) => attempt['status'] !== 'finished' && attempt['epoch'] === epoch);
    if (isHeld !== (status === 'running')) broken.push(`${String(id)}: ${String(status)} ${isHeld ? 'with' : 'without'} an open attempt of its epoch`);
    if ((job['finished_at'] !== null) !== isTerminal(status as JobStatus)) broken.push(`${String(id)}: ${String(status)}, finished at ${String(job['finished_at'])}`);
    if ((status === 'succeeded') !== (job['result'] !== null)) broken.push(`${String(id)}: ${String(status)} and its result do not fit`);
    if (status === 'failed' && job['error'] === null) broken.push(`${String(id)}: failed without a reason`);
    const parents = jobs.filter((parent) => (job['after_job_ids'] as string[]).includes(parent['id'] as string));
    if (parents.some((parent) => ['failed', 'cancelled'].includes(parent['status'] as string)) && !isTerminal(status as JobStatus)) broken.push(`${String(id)}: waits for a job that will never succeed`);
  }
  const job = jobs.find(({ id }) => id === scene.jobId);
  if ((adapters.length === 1) !== (job?.['status'] === 'succeeded')) broken.push(`the job is ${String(job?.['status'])} and has ${adapters.length} adapters`);
  for (const said of ['Job cancelled', DONE, 'loss is not finite', 'Job paused']) {
    const count = events.filter(({ message }) => message === said).length;
    const most = said === 'Job paused' ? told.filter(({ operation }) => operation === 'pause').length + 1 : 1;
    if (count > most) broken.push(`"${said}" stands ${count} times`);
  }
  const endings = changes.filter(({ table, before, after }) => table === 'job' && after['id'] === scene.jobId && before !== null && !isTerminal(before['status'] as JobStatus) && isTerminal(after['status'] as JobStatus));
  if (endings.length > 1) broken.push(`the job ended ${endings.length} times`);
  for (const worker of workers) if (worker['drain'] !== null && worker['cordoned'] !== true) broken.push(`${String(worker['id'])} drains and takes jobs`);
  return [...broken, ...brokenSeries(metrics), ...brokenCharges(changes)];
}

/** Steps from 1 on, none missing, each told by the epoch it is stored under. */
function brokenSeries(metrics: readonly Row[]): string[] {
  const points = [...metrics].sort((a, b) => num(a['step']) - num(b['step']));
  return points.flatMap(({ step, epoch, value }, index) => {
    if (num(step) !== index + 1) return [`metrics: step ${num(step)} stands at place ${index + 1}`];
    return num(value) === valueOf(num(epoch), num(step)) ? [] : [`metrics: step ${num(step)} holds ${num(value)} under epoch ${num(epoch)}`];
  });
}

/** An attempt that ends is charged for once, in the transaction that ends it; one that was never taken is free. */
function brokenCharges(changes: readonly Change[]): string[] {
  return [...new Set(changes.map(({ xid }) => xid))].flatMap((xid) => {
    const own = changes.filter((change) => change.xid === xid);
    const ended = own.filter(({ table, before, after }) => table === 'attempt' && before?.['status'] !== 'finished' && after['status'] === 'finished' && after['outcome'] !== 'revoked').length;
    const charged = own.filter(({ table }) => table === 'team_usage').length;
    return ended === charged ? [] : [`usage: ${ended} attempts ended and ${charged} were charged`];
  });
}

/** A worker's late word frees it, whatever else it is not good for. */
function isClosing(table: string, before: Row | null, after: Row, of: AttemptKey | undefined): boolean {
  return table === 'attempt' && after['id'] === of?.attemptId && before?.['status'] !== 'finished' && after['status'] === 'finished';
}

function statusOf({ start, key }: Scene): string {
  if (start === 'paused' || start === 'cancelled') return start;
  return key === null ? 'queued' : 'running';
}

/** `bigint` columns come as text from rows, as numbers from the journal. */
const num = (value: unknown): number => Number(value ?? 0);
