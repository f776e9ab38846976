import { correctedRatio, decayedUsage, startOfMonth } from '@tunefleet/domain-scheduling';
import type { JsonObject } from '@tunefleet/foundation';
import type { AttemptRecord, UsageDayRecord } from '@tunefleet/ports';
import { chargedSeconds } from './company';
import type { JobRow, Tables } from './tables';

/** Charges the team for the time an ended attempt has held its worker, or shared it. */
export function chargeUsage(tables: Tables, attempt: AttemptRecord): void {
  const { teamId } = tables.jobs.get(attempt.jobId) as JobRow;
  const endMs = attempt.finishedAt?.getTime() ?? tables.nowMs();
  const monthMs = startOfMonth(endMs);
  const charged = chargedSeconds(tables, attempt, attempt.assignedAt.getTime(), endMs);
  const chargedThisMonth = chargedSeconds(tables, attempt, Math.max(attempt.assignedAt.getTime(), monthMs), endMs);
  const known = tables.usage.get(teamId) ?? { decayedGpuSeconds: 0, decayedAtMs: endMs, monthMs, monthGpuSeconds: 0 };
  tables.usage.set(teamId, {
    decayedGpuSeconds: charged + decayedUsage(known.decayedGpuSeconds, endMs - known.decayedAtMs),
    decayedAtMs: Math.max(known.decayedAtMs, endMs),
    monthMs,
    monthGpuSeconds: chargedThisMonth + (known.monthMs === monthMs ? known.monthGpuSeconds : 0),
  });
}

const NEW_WEIGHT = 0.3;

/** Keeps what a job that has succeeded took, for estimates of the next ones of its shape. */
export function keepMeasurement(tables: Tables, attempt: AttemptRecord, result: JsonObject): void {
  const job = tables.jobs.get(attempt.jobId) as JobRow;
  if (job.shape === null) return;
  const known = tables.measurements.get(job.shape);
  const peakBytes = result['peakDeviceBytes'];
  const wasAlone = !tables.attemptsOn(attempt.workerId).some(({ id, assignedAt, finishedAt }) => id !== attempt.id && assignedAt < (attempt.finishedAt ?? tables.now()) && (finishedAt === null || finishedAt > attempt.assignedAt));
  const isMeasured = wasAlone && job.memoryModel !== null && attempt.microBatchSize !== null && typeof peakBytes === 'number' && peakBytes > 0;
  const ratio = isMeasured ? correctedRatio(known?.memoryRatio ?? null, { peakBytes, rows: attempt.microBatchSize, model: job.memoryModel }) : null;
  const heldSeconds = ((attempt.finishedAt?.getTime() ?? 0) - attempt.assignedAt.getTime()) / 1000;
  const pace = attempt.resumeCheckpointId === null && (job.totalSteps ?? 0) > 0 ? heldSeconds / (job.totalSteps ?? 1) : null;
  const before = known?.secondsPerStep ?? null;
  tables.measurements.set(job.shape, {
    kind: job.kind,
    baseModel: job.baseModel,
    memoryRatio: ratio ?? known?.memoryRatio ?? null,
    secondsPerStep: before === null || pace === null ? (pace ?? before) : before + NEW_WEIGHT * (pace - before),
  });
}

/** @param averages of kind and base over their shapes, filled on first use */
export function secondsEstimate(tables: Tables, job: JobRow, fromStep: number, averages: Map<string, number | null>): number | null {
  if (job.totalSteps === null) return null;
  const pace = (job.shape === null ? null : tables.measurements.get(job.shape)?.secondsPerStep) ?? averagePace(tables, job, averages);
  return pace === null ? null : Math.max(1, job.totalSteps - fromStep) * pace;
}

function averagePace(tables: Tables, { kind, baseModel }: JobRow, averages: Map<string, number | null>): number | null {
  const key = `${kind} ${baseModel}`;
  const known = averages.get(key);
  if (known !== undefined) return known;
  const paces = [...tables.measurements.values()].filter((row) => row.kind === kind && row.baseModel === baseModel).flatMap(({ secondsPerStep }) => secondsPerStep ?? []);
  const average = paces.length === 0 ? null : paces.reduce((sum, pace) => sum + pace, 0) / paces.length;
  averages.set(key, average);
  return average;
}

const DAY_MS = 86_400_000;

export function usageByDay(tables: Tables, { from, to, team }: { readonly from: string; readonly to: string; readonly team?: string }): UsageDayRecord[] {
  const rows = new Map<string, { team: string; day: string; gpuSeconds: number; wastedGpuSeconds: number; attempts: number }>();
  for (let dayMs = Date.parse(from); dayMs <= Date.parse(to); dayMs += DAY_MS) {
    for (const attempt of tables.attempts.values()) {
      const name = tables.teams.get(tables.jobs.get(attempt.jobId)?.teamId ?? '')?.name ?? '';
      const beganMs = attempt.assignedAt.getTime();
      const endedMs = attempt.finishedAt?.getTime() ?? tables.nowMs();
      if (attempt.outcome === 'revoked' || beganMs >= dayMs + DAY_MS || endedMs <= dayMs || (team !== undefined && name !== team)) continue;
      const day = new Date(dayMs).toISOString().slice(0, 10);
      const row = rows.get(`${day} ${name}`) ?? { team: name, day, gpuSeconds: 0, wastedGpuSeconds: 0, attempts: 0 };
      rows.set(`${day} ${name}`, row);
      const untilMs = Math.min(endedMs, dayMs + DAY_MS);
      row.attempts++;
      row.gpuSeconds += chargedSeconds(tables, attempt, Math.max(beganMs, dayMs), untilMs);
      if (attempt.status !== 'finished' || attempt.outcome === 'succeeded') continue;
      const savedMs = Math.max(beganMs, ...tables.checkpointsOf(attempt.jobId).filter(({ attemptId }) => attemptId === attempt.id).map(({ createdAt }) => createdAt.getTime()));
      row.wastedGpuSeconds += chargedSeconds(tables, attempt, Math.max(savedMs, dayMs), untilMs);
    }
  }
  return [...rows.values()].sort((a, b) => (a.day === b.day ? (a.team < b.team ? -1 : 1) : a.day < b.day ? -1 : 1));
}
