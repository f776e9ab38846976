import type { RecordStore } from '@tunefleet/ports';
import type { Database } from '../database/database';
import type { Attempt } from '../generated/client';
import { attemptColumns } from './columns';
import { insertEventLocking } from './job-events';
import { attemptRecord, checkpointRecord, jobEventRecord, parseEventId } from './mapping';
import { toPage, unknownAfter } from './paging';

type ProgressMethods = Pick<RecordStore, 'listEvents' | 'appendEvent' | 'appendEventOnce' | 'listCheckpoints' | 'getCheckpoint' | 'listMetrics' | 'listAttempts'>;

/** What a job has left behind while it ran. */
export function progressMethods(db: Database): ProgressMethods {
  const { prisma } = db;
  return {
    listEvents: (jobId, { after, limit }) =>
      db.repeating(async () => {
        const anchor = after === undefined ? undefined : parseEventId(after);
        if (after !== undefined && (anchor == null || (await prisma.jobEvent.count({ where: { id: anchor, jobId } })) === 0)) throw unknownAfter(after);
        const rows = await prisma.jobEvent.findMany({
          where: { jobId, ...(anchor == null ? {} : { id: { lt: anchor } }) },
          orderBy: { id: 'desc' },
          take: limit + 1,
        });
        return toPage(rows, limit, jobEventRecord);
      }),

    appendEvent: ({ jobId, ...event }) => db.repeating(() => insertEventLocking(db.statements, jobId, event)),

    appendEventOnce: ({ jobId, ...event }) => db.repeating(() => insertEventLocking(db.statements, jobId, event, { once: true })),

    listCheckpoints: (jobId, { after, limit }) =>
      db.repeating(async () => {
        const anchor = after === undefined ? null : await prisma.checkpoint.findFirst({ where: { id: after, jobId }, select: { step: true } });
        if (after !== undefined && anchor === null) throw unknownAfter(after);
        const rows = await prisma.checkpoint.findMany({
          where: { jobId, ...(anchor === null ? {} : { step: { lt: anchor.step } }) },
          orderBy: { step: 'desc' },
          take: limit + 1,
        });
        return toPage(rows, limit, checkpointRecord);
      }),

    getCheckpoint: (id) =>
      db.repeating(async () => {
        const row = await prisma.checkpoint.findUnique({ where: { id } });
        return row && checkpointRecord(row);
      }),

    listMetrics: (jobId, { name, sinceStep, limit }) =>
      db.repeating(() =>
        prisma.metricPoint.findMany({
          where: { jobId, ...(name === undefined ? {} : { name }), ...(sinceStep === undefined ? {} : { step: { gt: sinceStep } }) },
          orderBy: [{ step: 'asc' }, { name: 'asc' }],
          take: limit,
          select: { name: true, step: true, value: true },
        }),
      ),

    listAttempts: (jobId) =>
      db.repeating(async () => (await db.statements.$queryRaw<Attempt[]>`select ${attemptColumns} from attempt a where a.job_id = ${jobId} order by a.epoch`).map(attemptRecord)),
  };
}
