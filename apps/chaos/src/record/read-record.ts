import { createHash } from 'node:crypto';
import type { BlobStore } from '@tunefleet/ports';
import type { AdapterRow, AttemptChange, AttemptRow, ChaosRecord, JobChange, JobRow, MetricChange, MetricRow, ResultFileRow } from './record';

export type Query = <Row>(sql: string) => Promise<Row[]>;

const ARTIFACTS = `jsonb_to_recordset(artifacts) as artifact (name text, sha256 text, bytes bigint)`;

/** Reads the record and what `audit.ts` noted, and hashes every blob the record names. */
export async function readRecord(query: Query, blobs: Pick<BlobStore, 'open' | 'stat'>): Promise<ChaosRecord> {
  const named = await query<{ sha256: string; namedBy: string }>(`
    select sha256, 'adapter ' || adapter.id as "namedBy" from adapter, ${ARTIFACTS}
    union all select sha256, 'checkpoint ' || checkpoint.id from checkpoint, ${ARTIFACTS}
    union all select sha256, 'file ' || id from file where deleted_at is null`);
  return {
    jobs: await query<JobRow>(
      `select id, idempotency_key as key, kind, status, epoch, total_steps as "totalSteps", result, error, waiting_reason as "waitingReason", result_file_ids as "resultFileIds" from job order by created_at`,
    ),
    attempts: await query<AttemptRow>(
      `select id, job_id as "jobId", epoch, worker_id as "workerId", status, outcome, resume_checkpoint_id is not null as resumed from attempt order by job_id, epoch`,
    ),
    jobChanges: await query<JobChange>(`select job_id as "jobId", from_status as from, to_status as to, from_epoch as "fromEpoch", to_epoch as "toEpoch" from chaos.job_change order by id`),
    attemptChanges: await query<AttemptChange>(
      `select attempt_id as "attemptId", job_id as "jobId", worker_id as "workerId", epoch, from_status as from, to_status as to, outcome,
        (extract(epoch from at) * 1000)::float8 as "atMs", (extract(epoch from lease_expires_at) * 1000)::float8 as "leaseEndsMs", worker_is_new as "workerIsNew" from chaos.attempt_change order by id`,
    ),
    metrics: await query<MetricRow>(`select job_id as "jobId", name, step, value, epoch from metric_point where name <> 'tokens_per_second' order by job_id, name, step`),
    metricChanges: await query<MetricChange>(`select job_id as "jobId", name, step, from_value as from, to_value as to from chaos.metric_change order by id`),
    announcedSteps: await query<{ jobId: string; step: number }>(`select job_id as "jobId", (data ->> 'step')::int as step from job_event where type = 'metrics' order by id`),
    adapters: await query<AdapterRow>(
      `select adapter.id, job_id as "jobId", (select json_agg(json_build_object('name', name, 'sha256', sha256, 'bytes', bytes) order by name) from ${ARTIFACTS}) as artifacts from adapter where deleted_at is null`,
    ),
    resultFiles: await query<ResultFileRow>(`select id, sha256, bytes::float8 as bytes from file where purpose like '%results' and deleted_at is null`),
    blobs: await blobStates(named, blobs),
  };
}

async function blobStates(named: readonly { sha256: string; namedBy: string }[], blobs: Pick<BlobStore, 'open' | 'stat'>): Promise<ChaosRecord['blobs']> {
  const states = new Map<string, ChaosRecord['blobs'][number]['state']>();
  for (const { sha256 } of named) if (!states.has(sha256)) states.set(sha256, await stateOf(sha256, blobs));
  return named.map((each) => ({ ...each, state: states.get(each.sha256) ?? 'missing' }));
}

async function stateOf(sha256: string, blobs: Pick<BlobStore, 'open' | 'stat'>): Promise<ChaosRecord['blobs'][number]['state']> {
  if ((await blobs.stat(sha256)) === null) return 'missing';
  const hash = createHash('sha256');
  for await (const chunk of await blobs.open(sha256)) hash.update(chunk as Buffer);
  return hash.digest('hex') === sha256 ? 'stored' : 'other bytes';
}
