import type { JobSummary } from '@tunefleet/contracts';
import type { JobRecord } from '@tunefleet/ports';

/** The job that this one repeats, as both APIs show it. */
export function sourceView({ sourceJobId, sourceRelation }: JobRecord): JobSummary['source'] {
  return sourceJobId === null || sourceRelation === null ? null : { job_id: sourceJobId, relation: sourceRelation };
}
