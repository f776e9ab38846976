import type { Freed, RetentionStore } from '@tunefleet/ports';
import { agoMs } from '../database/clock';
import type { Database } from '../database/database';
import { oldRows } from './old-rows';

interface FreedRow {
  readonly rows: number;
  readonly bytes: number;
}

export function prismaRetentionStore(db: Database): RetentionStore {
  const { prisma } = db;
  return {
    measure: (rule) =>
      db.repeating(async () => {
        const { table, where } = oldRows(rule);
        return freedOf(await prisma.$queryRaw<FreedRow[]>`
          select count(*)::float8 as rows, coalesce(sum(pg_column_size(t.*)), 0)::float8 as bytes from ${table} t where ${where}`);
      }),

    remove: (rule, limit) =>
      db.transaction(async (tx) => {
        const { table, key, where } = oldRows(rule);
        return freedOf(await tx.$queryRaw<FreedRow[]>`
          with gone as (
            delete from ${table} d
            where (${key}) in (select ${key} from ${table} t where ${where} limit ${limit} for update of t skip locked)
            returning pg_column_size(d.*) as bytes)
          select count(*)::float8 as rows, coalesce(sum(bytes), 0)::float8 as bytes from gone`);
      }),

    unreferenced: (sha256s) =>
      db.repeating(async () => {
        // One look at each table for all of them.
        const wanted = [...sha256s];
        const rows = await prisma.$queryRaw<{ sha256: string }[]>`
          with wanted as (select unnest(${wanted}::text[]) as sha256),
          live as (select id, spec, worker_spec, training_dataset_id, validation_dataset_id from job where finished_at is null),
          needed as (
            select sha256 from file where deleted_at is null and sha256 = any(${wanted}::text[])
            union select a.ref ->> 'sha256' from adapter, jsonb_array_elements(artifacts) as a (ref) where deleted_at is null
            union select a.ref ->> 'sha256' from checkpoint, jsonb_array_elements(artifacts) as a (ref)
            union select u.sha256 from job_upload u join live on live.id = u.job_id
            union select d.content_hash from dataset_version d join live on d.id in (live.training_dataset_id, live.validation_dataset_id)
            union select found[1] from live, regexp_matches(live.spec::text || coalesce(live.worker_spec::text, ''), '[0-9a-f]{64}', 'g') as found)
          select w.sha256 from wanted w where not exists (select 1 from needed n where n.sha256 = w.sha256)`;
        return rows.map(({ sha256 }) => sha256);
      }),

    claimTask: (name, everyMs) =>
      db.repeating(async () => {
        const claimed = await prisma.$queryRaw<unknown[]>`
          insert into task_run (name) values (${name})
          on conflict (name) do update set claimed_at = clock_timestamp() where task_run.claimed_at < ${agoMs(everyMs)} returning name`;
        return claimed.length > 0;
      }),
  };
}

function freedOf([row]: readonly FreedRow[]): Freed {
  return { rows: row?.rows ?? 0, bytes: row?.bytes ?? 0 };
}
