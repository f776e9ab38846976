import { artifactListSchema } from '@tunefleet/contracts';
import type { JsonObject } from '@tunefleet/foundation';
import type { AttemptKey, FleetAccess } from '@tunefleet/ports';
import type { Database } from '../database/database';
import { Prisma } from '../generated/client';

type ArtifactAccessMethods = Pick<FleetAccess, 'inputsOf' | 'isHeldBy' | 'noteUpload' | 'missingUploads' | 'unpublishedBytes'>;

/** What a worker may read and write: the attempt is live, and it is the worker's own. */
export function artifactAccessMethods(db: Database): ArtifactAccessMethods {
  const { prisma } = db;
  return {
    inputsOf: (workerId, key) =>
      db.repeating(async () => {
        const [row] = await prisma.$queryRaw<{ worker_spec: JsonObject | null; artifacts: unknown }[]>`
          select j.worker_spec, c.artifacts ${heldBy(workerId, key, Prisma.sql`left join checkpoint c on c.id = a.resume_checkpoint_id`)}`;
        return row === undefined ? null : { workerSpec: row.worker_spec ?? {}, resume: artifactListSchema.parse(row.artifacts ?? []) };
      }),

    isHeldBy: (workerId, key) => db.repeating(async () => (await prisma.$queryRaw<unknown[]>`select 1 as found ${heldBy(workerId, key)}`).length > 0),

    noteUpload: (workerId, key, { sha256, bytes }) =>
      db.repeating(async () => {
        const rows = await prisma.$queryRaw<unknown[]>`
          insert into job_upload (job_id, sha256, bytes) select j.id, ${sha256}, ${bytes}::bigint ${heldBy(workerId, key)}
          on conflict (job_id, sha256) do update set bytes = excluded.bytes returning job_id`;
        return rows.length > 0;
      }),

    missingUploads: (jobId, artifacts) =>
      db.repeating(async () => {
        const rows = await prisma.jobUpload.findMany({ where: { jobId, sha256: { in: artifacts.map(({ sha256 }) => sha256) } } });
        const sent = new Map(rows.map((row) => [row.sha256, Number(row.bytes)]));
        return artifacts.filter(({ sha256, bytes }) => sent.get(sha256) !== bytes);
      }),

    unpublishedBytes: (jobId) =>
      db.repeating(async () => {
        const [row] = await prisma.$queryRaw<{ bytes: number }[]>`
          select coalesce(sum(u.bytes), 0)::float8 as bytes from job_upload u
          where u.job_id = ${jobId}
            and not exists (select 1 from checkpoint c, jsonb_array_elements(c.artifacts) as a (ref) where c.job_id = u.job_id and a.ref ->> 'sha256' = u.sha256)`;
        return row?.bytes ?? 0;
      }),
  };
}

/** The one row of the attempt `a` and its job `j`, if it is live and the worker's. */
function heldBy(workerId: string, key: AttemptKey, join: Prisma.Sql = Prisma.empty): Prisma.Sql {
  return Prisma.sql`
    from attempt a join job j on j.id = a.job_id join worker w on w.id = a.worker_id ${join}
    where a.id = ${key.attemptId} and a.job_id = ${key.jobId} and a.epoch = ${key.epoch} and a.status <> 'finished'
      and a.worker_id = ${workerId} and a.worker_boot_id = w.boot_id and j.epoch = a.epoch and j.status = 'running'`;
}
