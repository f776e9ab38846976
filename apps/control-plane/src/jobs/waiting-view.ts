import type { JobSummary } from '@tunefleet/contracts';
import type { JobRecord } from '@tunefleet/ports';
import { unixSecondsOrNull } from '../http/time';

/** Why a queued job waits, its turn and when that may come, as all APIs show it. */
export function waitingView({ status, waitingReason, waitingCode, queuePosition, estimatedStart }: JobRecord): Pick<JobSummary, 'waiting_reason' | 'waiting_code' | 'queue_position' | 'estimated_start'> {
  if (status !== 'queued') return { waiting_reason: waitingReason, waiting_code: null, queue_position: null, estimated_start: null };
  return { waiting_reason: waitingReason, waiting_code: waitingCode, queue_position: queuePosition, estimated_start: unixSecondsOrNull(estimatedStart) };
}
