import type { JobStatus } from '@tunefleet/domain-jobs';
import type { JsonValue } from '@tunefleet/foundation';
import type { JobEventRecord } from '@tunefleet/ports';
import type { Statements } from '../database/statements';
import { Prisma } from '../generated/client';
import { jsonText, plainText } from './mapping';

export type NewEvent = Pick<JobEventRecord, 'level' | 'type' | 'message'> & { readonly data?: JsonValue };

/** Message column bound; longer texts are cut. */
const MESSAGE_CHARS_MAX = 4000;

/**
 * Adds events in the given order. The caller must hold the job's row lock (or have just inserted the job): it makes the ids,
 * drawn from a sequence, appear in growing order to readers that page by them.
 */
export async function insertEvents(tx: Statements, jobId: string, events: readonly NewEvent[]): Promise<void> {
  if (events.length === 0) return;
  const rows = events.map((event) => ({
    level: event.level,
    type: event.type,
    message: event.message.slice(0, MESSAGE_CHARS_MAX),
    data: event.data ?? null,
  }));
  const json = jsonText(rows);
  await tx.$executeRaw`
    insert into job_event (job_id, level, type, message, data)
    select ${jobId}, e.level, e.type, e.message, nullif(e.data, 'null'::jsonb)
    from rows from (jsonb_to_recordset(${json}::jsonb) as (level text, type text, message text, data jsonb))
      with ordinality as e (level, type, message, data, position)
    order by e.position`;
}

/** One event, with the job's lock taken in the same statement; nothing when there is no such job, or when the job has one with the same message and `once` is asked for. */
export async function insertEventLocking(tx: Pick<Statements, '$executeRaw'>, jobId: string, event: NewEvent, { once = false } = {}): Promise<void> {
  const message = plainText(event.message).slice(0, MESSAGE_CHARS_MAX);
  await tx.$executeRaw`
    with locked as (select id from job where id = ${jobId} for no key update)
    insert into job_event (job_id, level, type, message, data)
    select id, ${event.level}, ${event.type}, ${message}, nullif(${jsonText([event.data ?? null])}::jsonb -> 0, 'null'::jsonb) from locked
    ${once ? Prisma.sql`where not exists (select from job_event e where e.job_id = ${jobId} and e.message = ${message})` : Prisma.empty}`;
}

/** Locks the job against every other writer and says its status. Null: there is no such job. */
export async function lockJob(tx: Statements, jobId: string): Promise<JobStatus | null> {
  const [row] = await tx.$queryRaw<{ status: JobStatus }[]>`select status from job where id = ${jobId} for no key update`;
  return row?.status ?? null;
}
