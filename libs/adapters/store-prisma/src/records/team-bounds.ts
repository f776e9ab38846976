import { TunefleetError } from '@tunefleet/foundation';
import type { Transaction } from '../database/database';
import type { Statements } from '../database/statements';
import { toNumber } from './mapping';

// Both take the lock of the team's quota, where there is one: of requests that come at once, only so many pass as fit.

/** Call it after the job was written. @throws capacity with the numbers */
export async function requireRoomInQueue(tx: Statements, teamId: string): Promise<void> {
  const [quota] = await tx.$queryRaw<{ queued_jobs: number }[]>`
    select queued_jobs from team_quota where team_id = ${teamId} and queued_jobs is not null for no key update`;
  if (quota === undefined) return;
  // A statement of its own: it sees what was committed while the lock was waited for.
  const [counted] = await tx.$queryRaw<{ waiting: number }[]>`select count(*)::int as waiting from job where team_id = ${teamId} and status in ('validating_files', 'queued')`;
  const waiting = counted?.waiting ?? 0;
  if (waiting <= quota.queued_jobs) return;
  const others = waiting - 1 === 1 ? '1 job of your team waits' : `${waiting - 1} jobs of your team wait`;
  throw new TunefleetError('capacity', `${others}, and its quota is ${quota.queued_jobs}: submit again when some have started, cancel some, or ask for a higher quota`, {
    reason: 'queue_quota_exceeded',
    details: { waiting: waiting - 1, quota: quota.queued_jobs },
  });
}

/** Call it before the file is written. @throws capacity with the numbers */
export async function requireStorage(tx: Transaction, teamId: string, bytes: number): Promise<void> {
  const [quota] = await tx.$queryRaw<{ storage_bytes: bigint }[]>`
    select storage_bytes from team_quota where team_id = ${teamId} and storage_bytes is not null for no key update`;
  if (quota === undefined) return;
  const allowed = toNumber(quota.storage_bytes);
  const { _sum } = await tx.file.aggregate({ where: { teamId, deletedAt: null }, _sum: { bytes: true } });
  const used = toNumber(_sum.bytes ?? 0n);
  if (used + bytes <= allowed) return;
  throw new TunefleetError('capacity', `the file has ${bytes} bytes, your team's files have ${used}, and its quota is ${allowed}: delete files, or ask for a higher quota`, {
    reason: 'storage_quota_exceeded',
    param: 'file',
    details: { bytes, used, quota: allowed },
    // Trying again helps nobody before files are deleted.
    retry: 'never',
  });
}
