export interface InfraFailure {
  readonly jobId: string;
  readonly code: string;
}

export interface CordonRule {
  /** So many infrastructure failures within the time cordon a worker; 0: none ever does. */
  readonly failures: number;
  readonly withinMs: number;
  /** Of at least so many jobs: one that fails everywhere says more about itself than about the worker. */
  readonly jobs: number;
}

export const defaultCordonRule: CordonRule = { failures: 3, withinMs: 3_600_000, jobs: 2 };

/** @param failures of one worker within the rule's time, oldest first    @returns why it gets no more jobs, or null */
export function cordonReason(failures: readonly InfraFailure[], rule: CordonRule): string | null {
  const jobs = new Set(failures.map(({ jobId }) => jobId));
  const last = failures.at(-1);
  if (rule.failures <= 0 || last === undefined || failures.length < rule.failures || jobs.size < rule.jobs) return null;
  return `automatic: ${failures.length} infrastructure failures of ${jobs.size} jobs within ${Math.round(rule.withinMs / 60_000)} min, the last one ${last.code}`;
}
