import type { RecordKind, RecordRule } from '@tunefleet/ports';
import { agoMs } from '../database/clock';
import { Prisma } from '../generated/client';

/** The rows of a kind that a rule is about: `from` names the table `t`, `key` is its primary key. */
export interface OldRows {
  readonly table: Prisma.Sql;
  readonly key: Prisma.Sql;
  readonly where: Prisma.Sql;
}

/** Only of jobs that have ended, and not before that was so long ago. */
const ofEndedJob = (ms: number): Prisma.Sql => Prisma.sql`exists (select 1 from job j where j.id = t.job_id and j.finished_at < ${agoMs(ms)})`;

const rows: Readonly<Record<RecordKind, (rule: RecordRule) => OldRows>> = {
  outbox: ({ olderThanMs }) => ({ table: Prisma.sql`outbox`, key: Prisma.sql`id`, where: Prisma.sql`t.published_at < ${agoMs(olderThanMs)}` }),
  events: ({ olderThanMs, keep }) => ({
    table: Prisma.sql`job_event`,
    key: Prisma.sql`id`,
    where: Prisma.sql`${ofEndedJob(olderThanMs)} and t.id <= (select n.id from job_event n where n.job_id = t.job_id order by n.id desc offset ${keep} limit 1)`,
  }),
  metrics: ({ olderThanMs }) => ({ table: Prisma.sql`metric_point`, key: Prisma.sql`job_id, name, step`, where: ofEndedJob(olderThanMs) }),
  uploads: ({ olderThanMs }) => ({ table: Prisma.sql`job_upload`, key: Prisma.sql`job_id, sha256`, where: ofEndedJob(olderThanMs) }),
  checkpoints: ({ olderThanMs, keep }) => ({
    table: Prisma.sql`checkpoint`,
    key: Prisma.sql`id`,
    where: Prisma.sql`${ofEndedJob(olderThanMs)} and t.step <= (select n.step from checkpoint n where n.job_id = t.job_id order by n.step desc offset ${keep} limit 1)`,
  }),
  attempts: ({ olderThanMs }) => ({
    table: Prisma.sql`attempt`,
    key: Prisma.sql`id`,
    where: Prisma.sql`${ofEndedJob(olderThanMs)} and t.finished_at < ${agoMs(olderThanMs)} and not exists (select 1 from checkpoint c where c.attempt_id = t.id)`,
  }),
};

export function oldRows(rule: RecordRule): OldRows {
  return rows[rule.kind](rule);
}
