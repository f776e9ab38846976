import type { RunningJob, Snapshot, TeamAccount } from './snapshot';

export const USAGE_HALF_LIFE_MS = 7 * 24 * 3_600_000;

/** Charged for a job that nothing like was measured yet, and corrected by what it takes. */
export const ENTRY_SECONDS_DEFAULT = 900;

export interface TeamState {
  readonly account: TeamAccount;
  /** Decayed usage, what runs counted with its estimate, and what this pass has given. */
  gpuSeconds: number;
  runningJobs: number;
  /** In this calendar month, with what runs so far. */
  readonly monthGpuSeconds: number;
}

/** Usage after so much time without any. */
export function decayedUsage(gpuSeconds: number, elapsedMs: number): number {
  return gpuSeconds * 2 ** (-Math.max(0, elapsedMs) / USAGE_HALF_LIFE_MS);
}

/**
 * What every team has had. A job counts with its estimate from the moment it is placed (the entry penalty), so that a burst of jobs cannot
 * slip through before any of them has run; of those that share a worker now each with its part.
 * @see Kay & Lauder 1988, "A fair share scheduler", for the decay; Slurm's fair-share factor for the weights
 */
export function teamStates(snapshot: Pick<Snapshot, 'jobs' | 'running' | 'teams'>): ReadonlyMap<string, TeamState> {
  const states = new Map<string, TeamState>();
  const live = new Map<string, { gpuSeconds: number; count: number; monthGpuSeconds: number }>();
  const sharers = sharersByWorker(snapshot.running);
  for (const { teamId, workerId, gpuSeconds, monthGpuSeconds, secondsEstimate } of snapshot.running) {
    const share = 1 / (sharers.get(workerId) ?? 1);
    const sum = live.get(teamId) ?? { gpuSeconds: 0, count: 0, monthGpuSeconds: 0 };
    sum.gpuSeconds += Math.max(gpuSeconds, share * (secondsEstimate ?? ENTRY_SECONDS_DEFAULT));
    sum.count += 1;
    sum.monthGpuSeconds += monthGpuSeconds;
    live.set(teamId, sum);
  }
  const add = (account: TeamAccount): void => {
    const sum = live.get(account.id);
    states.set(account.id, {
      account,
      gpuSeconds: account.decayedGpuSeconds + (sum?.gpuSeconds ?? 0),
      runningJobs: sum?.count ?? 0,
      monthGpuSeconds: account.monthGpuSeconds + (sum?.monthGpuSeconds ?? 0),
    });
  };
  for (const team of snapshot.teams) add(team);
  for (const jobs of [snapshot.jobs, snapshot.running]) {
    for (const { teamId } of jobs) {
      if (!states.has(teamId)) add({ id: teamId, name: teamId, weight: 1, decayedGpuSeconds: 0, monthGpuSeconds: 0, quota: { runningJobs: null, gpuHoursPerMonth: null } });
    }
  }
  return states;
}

/** How many run on each worker. */
export function sharersByWorker(running: readonly Pick<RunningJob, 'workerId'>[]): ReadonlyMap<string, number> {
  const sharers = new Map<string, number>();
  for (const { workerId } of running) sharers.set(workerId, (sharers.get(workerId) ?? 0) + 1);
  return sharers;
}

/** The smaller, the more the team is due. */
export function dueness({ gpuSeconds, account }: TeamState): number {
  return gpuSeconds / account.weight;
}

export function startOfMonth(ms: number): number {
  const date = new Date(ms);
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), 1);
}

export function startOfNextMonth(ms: number): number {
  const date = new Date(ms);
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1, 1);
}
