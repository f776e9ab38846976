import type { JobStatus } from '@tunefleet/domain-jobs';
import type { JobRecord, RecordStore } from '@tunefleet/ports';
import { agoMs } from '../database/clock';
import type { Database } from '../database/database';
import { Prisma, type Job } from '../generated/client';
import { jobColumns } from './columns';
import { jobRecord } from './mapping';
import { inOrder, toPage, unknownAfter } from './paging';

type JobMethods = Pick<RecordStore, 'getJob' | 'listJobs' | 'listUnvalidatedJobs' | 'getJobForIntake' | 'countJobs'>;

export function jobMethods(db: Database): JobMethods {
  const { prisma } = db;
  return {
    getJob: (teamId, id) => readJob(db, Prisma.sql`j.id = ${id} and j.team_id = ${teamId}`),

    getJobForIntake: (id) => readJob(db, Prisma.sql`j.id = ${id}`),

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

async function readJob(db: Database, where: Prisma.Sql): Promise<JobRecord | null> {
  const [row] = await db.repeating(() => db.statements.$queryRaw<Job[]>`select ${jobColumns} from job j where ${where}`);
  return row === undefined ? null : jobRecord(row);
}

function metadataCondition(metadata: Readonly<Record<string, string>> | null | undefined): Prisma.Sql {
  if (metadata === undefined) return Prisma.empty;
  if (metadata === null) return Prisma.sql`and (metadata is null or metadata = '{}'::jsonb)`;
  return Prisma.sql`and metadata @> ${JSON.stringify(metadata)}::jsonb`;
}
