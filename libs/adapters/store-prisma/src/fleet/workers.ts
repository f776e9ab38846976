import { TunefleetError } from '@tunefleet/foundation';
import type { FleetStore } from '@tunefleet/ports';
import { agoMs } from '../database/clock';
import type { Database } from '../database/database';
import { announce, announcement } from '../database/wake-channel';
import { toJson, workerRecord } from '../records/mapping';

type WorkerMethods = Pick<FleetStore, 'helloWorker' | 'touchWorker' | 'setCredit' | 'disconnectWorker' | 'markSilentWorkers'>;

export function workerMethods(db: Database): WorkerMethods {
  return {
    helloWorker: (hello) =>
      db.transaction(async (tx) => {
        // Locked, so that a revocation comes either before this or finds the session that this makes.
        const [credential] = await tx.$queryRaw<{ revoked: boolean }[]>`
          select revoked_at is not null as revoked from worker_credential where worker_id = ${hello.id} for share`;
        if (credential?.revoked === true) throw new TunefleetError('permission_denied', `worker ${hello.id} was revoked`, { reason: 'worker_revoked' });
        // An operator's cordon outlives the worker's restarts; everything else is as the worker says now.
        await tx.$executeRaw`
          insert into worker (id, name, boot_id, status, version, device, labels, job_kinds, models_on_disk, model_in_memory, slots,
            credit, session_id, replica_id, last_seen_at)
          values (${hello.id}, ${hello.name}, ${hello.bootId}, 'online', ${hello.version}, ${toJson(hello.device)}::jsonb,
            ${toJson(hello.labels)}::jsonb, ${[...hello.jobKinds]}::text[], ${[...hello.modelsOnDisk]}::text[], ${hello.modelInMemory}, ${hello.slots}::int,
            0, ${hello.sessionId}, ${hello.replicaId}, clock_timestamp())
          on conflict (id) do update set
            name = excluded.name, boot_id = excluded.boot_id, status = excluded.status, version = excluded.version,
            device = excluded.device, labels = excluded.labels, job_kinds = excluded.job_kinds,
            models_on_disk = excluded.models_on_disk, model_in_memory = excluded.model_in_memory, slots = excluded.slots, credit = 0,
            session_id = excluded.session_id, replica_id = excluded.replica_id, last_seen_at = excluded.last_seen_at`;
        // Whoever holds an older stream of this worker finds that it was taken over.
        await announce(tx, `worker:${hello.id}`);
        return workerRecord(await tx.worker.findUniqueOrThrow({ where: { id: hello.id } }));
      }),

    touchWorker: (workerId, sessionId, { memoryBytesFree }) =>
      db.repeating(async () => {
        const free = memoryBytesFree === undefined ? null : String(Math.max(0, Math.round(memoryBytesFree)));
        // Takes the row lock before looking: `before` is what is overwritten.
        const changed = await db.statements.$executeRaw`
          with before as materialized (select id, status from worker where id = ${workerId} and session_id = ${sessionId} for no key update)
          update worker w set last_seen_at = clock_timestamp(), status = 'online',
            device = case when ${free}::text is null then device else jsonb_set(device, '{memoryBytesFree}', ${free}::text::jsonb) end
          from before where w.id = before.id
          returning case when before.status <> 'online' then ${announcement('schedule')}::text end`;
        return changed > 0;
      }),

    setCredit: (workerId, sessionId, { jobs, modelsOnDisk, modelInMemory }) =>
      db.repeating(async () => {
        const changed = await db.statements.$executeRaw`
          update worker set credit = ${Math.max(0, Math.trunc(jobs))}::int, models_on_disk = ${[...modelsOnDisk]}::text[], model_in_memory = ${modelInMemory},
            last_seen_at = clock_timestamp(), status = 'online'
          where id = ${workerId} and session_id = ${sessionId}
          returning case when credit > 0 then ${announcement('schedule')}::text end`;
        return changed > 0;
      }),

    disconnectWorker: (workerId, sessionId) =>
      db.repeating(async () => {
        await db.statements.$executeRaw`
          update worker set session_id = null, replica_id = null, credit = 0, status = 'suspect'
          where id = ${workerId} and session_id = ${sessionId}`;
      }),

    markSilentWorkers: (suspectMs, offlineMs) =>
      db.transaction(async (tx) => {
        const offline = await tx.$queryRaw<{ id: string }[]>`
          update worker set status = 'offline', credit = 0, session_id = null, replica_id = null
          where status <> 'offline' and last_seen_at < ${agoMs(offlineMs)} returning id`;
        const suspect = await tx.$queryRaw<{ id: string }[]>`
          update worker set status = 'suspect'
          where status = 'online' and last_seen_at < ${agoMs(suspectMs)} returning id`;
        return [...offline, ...suspect].map(({ id }) => id);
      }),
  };
}
