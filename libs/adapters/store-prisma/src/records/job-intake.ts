import { jobKinds, schemaVersionOf } from '@tunefleet/contracts';
import { nextStatus } from '@tunefleet/domain-jobs';
import { TunefleetError, invariant, newId } from '@tunefleet/foundation';
import type { JobAdmission, JobRecord, NewJob, RecordStore } from '@tunefleet/ports';
import type { Database } from '../database/database';
import { isUniqueViolation } from '../database/database-errors';
import type { Statements } from '../database/statements';
import { announcement } from '../database/wake-channel';
import { Prisma, type Job } from '../generated/client';
import { jobColumns } from './columns';
import { explainWaiting, requireParents, skipDependents } from './dependents';
import { insertEvents } from './job-events';
import { boundedFailure, jobRecord, jsonText } from './mapping';
import { requireRoomInQueue } from './team-bounds';

/** From the request to the queue, or to the refusal. */
export function intakeMethods(db: Database): Pick<RecordStore, 'createJob' | 'admitJob' | 'refuseJob'> {
  return {
    createJob: async (request) => {
      try {
        return { job: await createJob(db, request), created: true };
      } catch (error) {
        if (request.idempotency === undefined || !isUniqueViolation(error)) throw error;
        const earlier = await db.prisma.job.findUnique({
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

    admitJob: async (id, admission) =>
      (await db.repeating(() => admit(db.statements, { id, admission, when: WITHOUT_PARENTS }))) ||
      db.atomically(async (tx) => {
        if (!(await admit(tx, { id, admission, when: ALWAYS }))) return false;
        await explainWaiting(tx, { ids: [id], limit: 1 });
        return true;
      }),

    refuseJob: (id, failure) =>
      db.atomically(async (tx) => {
        const refused = await tx.$executeRaw`
          update job set status = ${nextStatus('validating_files', 'failed')}, error = ${jsonText(boundedFailure(failure))}::jsonb, finished_at = clock_timestamp()
          where id = ${id} and status = 'validating_files'`;
        if (refused === 0) return false;
        await insertEvents(tx, id, [{ level: 'error', type: 'message', message: failure.message }]);
        await tx.$executeRaw(settleIntake(id, ALWAYS));
        await skipDependents(tx, id);
        return true;
      }),
  };
}

const ALWAYS = Prisma.sql`true`;
const WITHOUT_PARENTS = Prisma.sql`after_job_ids = '{}'`;

/** One statement where nothing has to be locked first: no parents, no bound on the team's queue. */
async function createJob(db: Database, request: NewJob): Promise<JobRecord> {
  const { teamId, afterJobIds = [] } = request;
  if (afterJobIds.length === 0) {
    const isUnbounded = Prisma.sql`not exists (select from team_quota where team_id = ${teamId} and queued_jobs is not null)`;
    const job = await db.repeating(() => insertJob(db.statements, request, isUnbounded));
    if (job !== null) return job;
  }
  return db.atomically(async (tx) => {
    const job = await insertJob(tx, request, ALWAYS);
    invariant(job !== null, `the database did not answer with job ${request.id}`);
    // After the insert: a repeated request is answered with its job, whatever has become of the parents since.
    await requireRoomInQueue(tx, teamId);
    await requireParents(tx, teamId, afterJobIds);
    return job;
  });
}

/** The job, its first event and the message that is owed to intake. Null: `when` is not so. */
async function insertJob(tx: Pick<Statements, '$queryRaw'>, request: NewJob, when: Prisma.Sql): Promise<JobRecord | null> {
  const { id, teamId, kind, spec, queue, idempotency, source } = request;
  const [row] = await tx.$queryRaw<Job[]>`
    with j as (
      insert into job (id, team_id, kind, schema_version, status, priority, spec, base_model, worker_selector, metadata,
        idempotency_key, idempotency_hash, after_job_ids, source_job_id, source_relation)
      select ${id}, ${teamId}, ${kind}, ${schemaVersionOf(kind, spec)}::int, 'validating_files', ${request.priority}::int, ${jsonText(spec)}::jsonb, ${request.baseModel},
        ${jsonText(request.workerSelector ?? {})}::jsonb, ${request.metadata === null ? null : jsonText(request.metadata)}::jsonb,
        ${idempotency?.key ?? null}, ${idempotency?.requestHash ?? null}, ${[...(request.afterJobIds ?? [])]}::text[], ${source?.jobId ?? null}, ${source?.relation ?? null}
      where ${when}
      returning *),
    told as (insert into job_event (job_id, level, type, message) select id, 'info', 'message', ${`Job created: ${id}${origin(request)}`} from j),
    owed as (insert into outbox (id, queue, message_id, payload) select ${newId('outbox')}, ${queue}, ${messageId(queue, id)}, jsonb_build_object('jobId', id) from j)
    select ${jobColumns} from j`;
  return row === undefined ? null : jobRecord(row);
}

const messageId = (queue: string, jobId: string): string => `${queue}-${jobId}`;
const intakeQueues: readonly string[] = [...new Set(Object.values(jobKinds).map(({ queue }) => queue))];

/** What calls intake to the job is no longer owed once intake is done. A relay that is just handing it on is not waited for. */
function settleIntake(id: string, when: Prisma.Sql): Prisma.Sql {
  return Prisma.sql`
    update outbox set published_at = clock_timestamp()
    where id in (select id from outbox where message_id = any(${intakeQueues.map((queue) => messageId(queue, id))}::text[]) and published_at is null and ${when} for update skip locked)`;
}

interface Admitting {
  readonly id: string;
  readonly admission: JobAdmission;
  readonly when: Prisma.Sql;
}

/** @returns false when the job is no longer being validated, or `when` is not so */
async function admit(tx: Pick<Statements, '$queryRaw'>, { id, admission, when }: Admitting): Promise<boolean> {
  const { weightBytes, memoryModel, sharing } = admission;
  const bytes = (value: number): bigint => BigInt(Math.ceil(value));
  // Its turn counts from its submission, to the microsecond: a file that takes longer to check costs no place.
  const admitted = await tx.$queryRaw<unknown[]>`
    with admitted as (
      update job set status = ${nextStatus('validating_files', 'validated')}, queued_at = created_at, spec = ${jsonText(admission.spec)}::jsonb, worker_spec = ${jsonText(admission.workerSpec)}::jsonb,
        total_steps = ${admission.totalSteps}::int, memory_bytes_estimate = ${bytes(admission.memoryBytesEstimate)}, weight_bytes = ${weightBytes === undefined ? null : bytes(weightBytes)}::bigint,
        shape = ${admission.shape ?? null}, memory_model = ${memoryModel === undefined ? null : jsonText(memoryModel)}::jsonb,
        share_key = ${sharing?.key ?? null}, shared_memory_bytes = ${sharing === undefined ? null : bytes(sharing.memoryBytes)}::bigint,
        training_dataset_id = ${admission.trainingDatasetId}, validation_dataset_id = ${admission.validationDatasetId}
      where id = ${id} and status = 'validating_files' and ${when}
      returning id),
    told as (insert into job_event (job_id, level, type, message) select id, 'info', 'message', 'Files validated, moving job to queued state' from admitted),
    settled as (${settleIntake(id, Prisma.sql`exists (select from admitted)`)})
    select ${announcement('schedule')}::text from admitted`;
  return admitted.length > 0;
}

function origin({ source }: NewJob): string {
  if (source === undefined) return '';
  return source.relation === 'retry' ? `, again after ${source.jobId}` : `, a copy of ${source.jobId}`;
}
