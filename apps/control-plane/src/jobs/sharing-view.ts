import type { Company } from '@tunefleet/contracts';
import type { AttemptCompany, JobRecord } from '@tunefleet/ports';

/** Null: not known before its files are validated. */
export function mayShareWorker({ status, shareKey }: JobRecord): boolean | null {
  return status === 'validating_files' ? null : shareKey !== null;
}

/** Of other teams nobody learns more than how many jobs there are. */
export function companyView(beside: AttemptCompany['beside'], teamId: string): Company {
  const own = beside.filter((job) => job.teamId === teamId);
  return { jobs: own.map(({ jobId }) => jobId), other_teams_jobs: beside.length - own.length };
}
