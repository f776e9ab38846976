import { schemaVersionOf } from '@tunefleet/contracts';
import { nextStatus, type JobStatus } from '@tunefleet/domain-jobs';
import { TunefleetError, newId } from '@tunefleet/foundation';
import type { JobRecord, NewJob, RecordStore } from '@tunefleet/ports';
import { agoMs, databaseTime } from '../database/clock';
import type { Database, Transaction } from '../database/database';
import { isUniqueViolation } from '../database/database-errors';
import { announce } from '../database/wake-channel';
import { Prisma } from '../generated/client';
import { explainWaiting, requireParents, skipDependents } from './dependents';
import { insertEvents, lockJob } from './job-events';
import { failureJson, jobRecord, toJson, toJsonOrNull } from './mapping';
import { inOrder, toPage, unknownAfter } from './paging';
import { requireRoomInQueue } from './team-bounds';

type JobMethods = Pick<
  RecordStore,
  'createJob' | 'getJob' | 'listJobs' | 'admitJob' | 'refuseJob' | 'listUnvalidatedJobs' | 'getJobForIntake' | 'countJobs'
>;

export function jobMethods(db: Database): JobMethods {
  const { prisma } = db;
  return {
    createJob: async (request) => {
      try {
        return { job: await db.transaction((tx) => insertJob(tx, request)), created: true };
      } catch (error) {
        if (request.idempotency === undefined || !isUniqueViolation(error)) throw error;
        const earlier = await prisma.job.findUnique({
          where: { teamId_idempotencyKey: { teamId: request.teamId, idempotencyKey: request.idempotency.key } },
        });
        // Some other uniqueness was violated.
        if (earlier === null) throw error;
        if (earlier.idempotencyHash !== request.idempotency.requestHash) {
          throw new TunefleetError('conflict', `the idempotency key was used for another request, which made job ${earlier.id}: send a new key`, {
            reason: 'idempotency_key_reused',
            details: { jobId: earlier.id },
            retry: 'never',
          });
        }
        return { job: jobRecord(earlier), created: false };
      }
    },

    getJob: (teamId, id) =>
      db.repeating(async () => {
        const row = await prisma.job.findFirst({ where: { id, teamId } });
        return row && jobRecord(row);
      }),

    getJobForIntake: (id) =>
      db.repeating(async () => {
        const row = await prisma.job.findUnique({ where: { id } });
        return row && jobRecord(row);
      }),

    listJobs: (teamId, { after, limit, kind, status, metadata }) =>
      db.repeating(async () => {
        if (after !== undefined && (await prisma.job.count({ where: { id: after, teamId } })) === 0) throw unknownAfter(after);
        const found = await prisma.$queryRaw<{ id: string }[]>`
          select id from job
          where team_id = ${teamId}
            ${kind === undefined ? Prisma.empty : Prisma.sql`and kind = ${kind}`}
            ${status === undefined ? Prisma.empty : Prisma.sql`and status = ${status}`}
            ${metadataCondition(metadata)}
            ${after === undefined ? Prisma.empty : Prisma.sql`and (created_at, id) < (select created_at, id from job where id = ${after})`}
          order by created_at desc, id desc
          limit ${limit + 1}`;
        const ids = found.map(({ id }) => id);
        return toPage(inOrder(ids, await prisma.job.findMany({ where: { id: { in: ids } } })), limit, jobRecord);
      }),

    admitJob: (id, admission) =>
      db.transaction(async (tx) => {
        // Takes the job's lock. Its turn counts from its submission, to the microsecond: a file that takes longer to check costs no place.
        if ((await tx.$executeRaw`update job set queued_at = created_at where id = ${id} and status = 'validating_files'`) === 0) return false;
        const { afterJobIds } = await tx.job.update({
          where: { id },
          select: { afterJobIds: true },
          data: {
            status: nextStatus('validating_files', 'validated'),
            spec: toJson(admission.spec),
            workerSpec: toJson(admission.workerSpec),
            totalSteps: admission.totalSteps,
            memoryBytesEstimate: BigInt(Math.ceil(admission.memoryBytesEstimate)),
            weightBytes: admission.weightBytes === undefined ? null : BigInt(Math.ceil(admission.weightBytes)),
            shape: admission.shape ?? null,
            memoryModel: toJsonOrNull(admission.memoryModel ?? null),
            trainingDatasetId: admission.trainingDatasetId,
            validationDatasetId: admission.validationDatasetId,
          },
        });
        await insertEvents(tx, id, [{ level: 'info', type: 'message', message: 'Files validated, moving job to queued state' }]);
        if (afterJobIds.length > 0) await explainWaiting(tx, { ids: [id], limit: 1 });
        await announce(tx, 'schedule');
        return true;
      }),

    refuseJob: (id, failure) =>
      db.transaction(async (tx) => {
        if ((await lockJob(tx, id)) !== 'validating_files') return false;
        await tx.job.update({
          where: { id },
          data: { status: nextStatus('validating_files', 'failed'), error: failureJson(failure), finishedAt: await databaseTime(tx) },
        });
        await insertEvents(tx, id, [{ level: 'error', type: 'message', message: failure.message }]);
        await skipDependents(tx, id);
        return true;
      }),

    listUnvalidatedJobs: (olderThanMs, limit) =>
      db.repeating(async () => {
        const found = await prisma.$queryRaw<{ id: string }[]>`
          select id from job
          where status = 'validating_files' and created_at < ${agoMs(olderThanMs)}
          order by created_at
          limit ${limit}`;
        const ids = found.map(({ id }) => id);
        return inOrder(ids, await prisma.job.findMany({ where: { id: { in: ids } } })).map(jobRecord);
      }),

    countJobs: () =>
      db.repeating(async () => {
        const groups = await prisma.job.groupBy({ by: ['status'], _count: { _all: true } });
        return Object.fromEntries(groups.map((group) => [group.status, group._count._all])) as Partial<Record<JobStatus, number>>;
      }),
  };
}

async function insertJob(tx: Transaction, request: NewJob): Promise<JobRecord> {
  const row = await tx.job.create({
    data: {
      id: request.id,
      teamId: request.teamId,
      kind: request.kind,
      schemaVersion: schemaVersionOf(request.kind, request.spec),
      status: 'validating_files',
      priority: request.priority,
      spec: toJson(request.spec),
      baseModel: request.baseModel,
      workerSelector: toJson(request.workerSelector ?? {}),
      metadata: toJsonOrNull(request.metadata),
      idempotencyKey: request.idempotency?.key ?? null,
      idempotencyHash: request.idempotency?.requestHash ?? null,
      afterJobIds: [...(request.afterJobIds ?? [])],
      sourceJobId: request.source?.jobId ?? null,
      sourceRelation: request.source?.relation ?? null,
    },
  });
  // After the insert: a repeated request is answered with its job, whatever has become of the parents since.
  await requireRoomInQueue(tx, request.teamId);
  await requireParents(tx, request.teamId, request.afterJobIds ?? []);
  await insertEvents(tx, row.id, [{ level: 'info', type: 'message', message: `Job created: ${row.id}${origin(request)}` }]);
  await tx.outbox.create({ data: { id: newId('outbox'), queue: request.queue, messageId: `${request.queue}-${row.id}`, payload: { jobId: row.id } } });
  return jobRecord(row);
}

function origin({ source }: NewJob): string {
  if (source === undefined) return '';
  return source.relation === 'retry' ? `, again after ${source.jobId}` : `, a copy of ${source.jobId}`;
}

function metadataCondition(metadata: Readonly<Record<string, string>> | null | undefined): Prisma.Sql {
  if (metadata === undefined) return Prisma.empty;
  if (metadata === null) return Prisma.sql`and (metadata is null or metadata = '{}'::jsonb)`;
  return Prisma.sql`and metadata @> ${JSON.stringify(metadata)}::jsonb`;
}
