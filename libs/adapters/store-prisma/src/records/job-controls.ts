import { isTerminal, sourcesOf, type JobStatus, type JobTransition } from '@tunefleet/domain-jobs';
import { TunefleetError } from '@tunefleet/foundation';
import type { JobRecord, RecordStore } from '@tunefleet/ports';
import { databaseTime } from '../database/clock';
import type { Database, Transaction } from '../database/database';
import { announce } from '../database/wake-channel';
import { requestStop } from '../fleet/stops';
import { skipDependents } from './dependents';
import { insertEvents, lockJob } from './job-events';
import { jobRecord } from './mapping';

type ControlMethods = Pick<RecordStore, 'cancelJob' | 'pauseJob' | 'resumeJob' | 'setJobPriority'>;

/** What a user may do to a job. Each locks the job, looks, and changes it or says why not. */
export function controlMethods(db: Database): ControlMethods {
  const controlling = (teamId: string, id: string, change: (tx: Transaction, job: JobRecord) => Promise<void>): Promise<JobRecord | null> =>
    db.transaction(async (tx) => {
      await lockJob(tx, id);
      const before = await tx.job.findFirst({ where: { id, teamId } });
      if (before === null) return null;
      await change(tx, jobRecord(before));
      return jobRecord(await tx.job.findUniqueOrThrow({ where: { id } }));
    });
  return {
    cancelJob: (teamId, id) => controlling(teamId, id, cancel),
    pauseJob: (teamId, id, graceMs) => controlling(teamId, id, (tx, job) => pause(tx, job, graceMs)),
    resumeJob: (teamId, id) => controlling(teamId, id, resume),
    setJobPriority: (teamId, id, priority) => controlling(teamId, id, (tx, job) => setPriority(tx, job, priority)),
  };
}

async function cancel(tx: Transaction, job: JobRecord): Promise<void> {
  if (job.status === 'cancelled') return;
  if (isTerminal(job.status)) throw illegal(job, 'cancelled', `job ${job.id} has ${job.status} and can no longer be cancelled`);
  await tx.job.update({
    where: { id: job.id },
    data: { status: 'cancelled', epoch: { increment: 1 }, finishedAt: await databaseTime(tx), waitingReason: null, estimatedFinish: null, stopReason: null, stopDeadline: null },
  });
  await say(tx, job, 'Job cancelled');
  const live = await tx.attempt.findFirst({ where: { jobId: job.id, status: { not: 'finished' } }, select: { workerId: true } });
  if (live) await announce(tx, `worker:${live.workerId}`);
  await skipDependents(tx, job.id);
}

async function pause(tx: Transaction, job: JobRecord, graceMs: number): Promise<void> {
  if (job.status === 'paused' || job.stopReason === 'paused') return;
  if (!sourcesOf('paused').includes(job.status)) throw illegal(job, 'paused', `job ${job.id} is ${job.status}: only a queued or running job can be paused`);
  if (job.status === 'running') {
    await requestStop(tx, job, 'paused', graceMs);
    return;
  }
  await tx.job.update({ where: { id: job.id }, data: { status: 'paused', waitingReason: null } });
  await say(tx, job, 'Job paused');
}

async function resume(tx: Transaction, job: JobRecord): Promise<void> {
  if (job.stopReason === 'paused') {
    await requestStop(tx, job, 'resumed', 0);
    return;
  }
  if (!sourcesOf('resumed').includes(job.status)) throw illegal(job, 'resumed', `job ${job.id} is ${job.status}: only a paused job can be resumed`);
  await tx.job.update({ where: { id: job.id }, data: { status: 'queued', queuedAt: await databaseTime(tx), waitingReason: null } });
  await say(tx, job, 'Job resumed, moving it to queued state');
  await announce(tx, 'schedule');
}

const WAITING: readonly JobStatus[] = ['validating_files', 'queued', 'paused'];

async function setPriority(tx: Transaction, job: JobRecord, priority: number): Promise<void> {
  if (!WAITING.includes(job.status)) {
    throw new TunefleetError('illegal_transition', `job ${job.id} is ${job.status}: the priority says when a job starts, so only that of a waiting one can be changed`, { details: { status: job.status } });
  }
  if (job.priority === priority) return;
  await tx.job.update({ where: { id: job.id }, data: { priority } });
  await say(tx, job, `Priority changed from ${job.priority} to ${priority}`);
  await announce(tx, 'schedule');
}

function say(tx: Transaction, job: JobRecord, message: string): Promise<void> {
  return insertEvents(tx, job.id, [{ level: 'info', type: 'message', message }]);
}

function illegal(job: JobRecord, transition: JobTransition, message: string): TunefleetError {
  return new TunefleetError('illegal_transition', message, { details: { from: job.status, transition } });
}
