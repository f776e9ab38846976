import type { WaitingJob } from '@tunefleet/domain-scheduling';
import type { Database } from '../database/database';

/** A forecast that moved by less is not written again: it moves a little with every pass. */
const START_TOLERANCE_SECONDS = 15;

/** One statement for all; rows that say so already are left alone. */
export async function noteWaiting(db: Database, waiting: ReadonlyMap<string, WaitingJob>): Promise<void> {
  if (waiting.size === 0) return;
  const jobs = [...waiting];
  const ids = jobs.map(([id]) => id);
  const codes = jobs.map(([, { code }]) => code);
  const texts = jobs.map(([, { text }]) => text);
  const positions = jobs.map(([, { position }]) => position);
  // Text, because a list for Prisma may hold no nulls.
  const starts = jobs.map(([, { estimatedStartMs }]) => (estimatedStartMs === null ? '' : new Date(estimatedStartMs).toISOString()));
  await db.repeating(
    () => db.statements.$executeRaw`
      update job set waiting_code = r.code, waiting_reason = r.reason, queue_position = r.position, estimated_start = r.start,
        locality_since = case when r.code = 'model_locality' then coalesce(job.locality_since, clock_timestamp()) else job.locality_since end
      from (
        select id, code, reason, position, nullif(start, '')::timestamptz as start
        from unnest(${ids}::text[], ${codes}::text[], ${texts}::text[], ${positions}::int[], ${starts}::text[]) as u (id, code, reason, position, start)) r
      where job.id = r.id and job.status = 'queued'
        and (job.waiting_code is distinct from r.code or job.waiting_reason is distinct from r.reason or job.queue_position is distinct from r.position
          or (job.estimated_start is null) <> (r.start is null) or abs(extract(epoch from job.estimated_start - r.start)) > ${START_TOLERANCE_SECONDS}::float8)`,
  );
}
