import { startOfNextMonth, type TeamState } from './team-shares';
import type { WaitingReason } from './waiting-reason';

/** What keeps a team from being given one more worker; null: nothing. */
export function quotaReason({ account, runningJobs, monthGpuSeconds }: TeamState, nowMs: number): WaitingReason | null {
  const { runningJobs: runningMax, gpuHoursPerMonth } = account.quota;
  if (runningMax !== null && runningJobs >= runningMax) {
    return { code: 'quota', text: `team ${account.name} may run ${runningMax === 1 ? '1 job' : `${runningMax} jobs`} at once and does: waiting for one to end, or for a higher quota` };
  }
  if (gpuHoursPerMonth !== null && monthGpuSeconds >= gpuHoursPerMonth * 3600) {
    const next = new Date(startOfNextMonth(nowMs)).toISOString().slice(0, 10);
    return { code: 'quota', text: `team ${account.name} has used its ${gpuHoursPerMonth} GPU-hours of this month: it goes on from ${next} on, or with a higher quota` };
  }
  return null;
}
