import { correctedRatio, type MemoryModel } from '@tunefleet/domain-scheduling';
import type { JsonObject } from '@tunefleet/foundation';
import type { Statements } from '../database/statements';

interface MeasuredRow {
  readonly shape: string;
  readonly kind: string;
  readonly base_model: string;
  readonly memory_model: MemoryModel | null;
  readonly micro_batch_size: number | null;
  readonly memory_ratio: number | null;
  /** Nobody else held the worker meanwhile. */
  readonly was_alone: boolean;
  /** Null unless the attempt did all steps. */
  readonly seconds_per_step: number | null;
}

/** A new measurement counts so much against what was known. */
const NEW_WEIGHT = 0.3;

/** Keeps what a job that has succeeded took, for estimates of the next ones of its shape. Call it after its attempt was ended. */
export async function keepMeasurement(tx: Statements, attemptId: string, result: JsonObject): Promise<void> {
  const [row] = await tx.$queryRaw<MeasuredRow[]>`
    select j.shape, j.kind, j.base_model, j.memory_model, a.micro_batch_size, m.memory_ratio,
      not exists (
        select 1 from attempt o where o.worker_id = a.worker_id and o.id <> a.id and o.assigned_at < a.finished_at and (o.status <> 'finished' or o.finished_at > a.assigned_at)) as was_alone,
      case when a.resume_checkpoint_id is null and j.total_steps > 0 then extract(epoch from a.finished_at - a.assigned_at)::float8 / j.total_steps end as seconds_per_step
    from attempt a join job j on j.id = a.job_id left join measurement m on m.shape = j.shape
    where a.id = ${attemptId} and j.shape is not null`;
  if (row === undefined) return;
  const peakBytes = result['peakDeviceBytes'];
  // The peak is the engine's, and all that share it have their part in it.
  const isMeasured = row.was_alone && row.memory_model !== null && row.micro_batch_size !== null && typeof peakBytes === 'number' && peakBytes > 0;
  const ratio = isMeasured ? correctedRatio(row.memory_ratio, { peakBytes, rows: row.micro_batch_size, model: row.memory_model }) : null;
  await tx.$executeRaw`
    insert into measurement (shape, kind, base_model, memory_ratio, seconds_per_step, samples)
    values (${row.shape}, ${row.kind}, ${row.base_model}, ${ratio}::float8, ${row.seconds_per_step}::float8, 1)
    on conflict (shape) do update set
      memory_ratio = coalesce(excluded.memory_ratio, measurement.memory_ratio),
      seconds_per_step = coalesce(measurement.seconds_per_step + ${NEW_WEIGHT}::float8 * (excluded.seconds_per_step - measurement.seconds_per_step), excluded.seconds_per_step, measurement.seconds_per_step),
      samples = measurement.samples + 1, updated_at = clock_timestamp()`;
}
