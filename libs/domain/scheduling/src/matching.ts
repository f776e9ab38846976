import type { QueuedJob, SchedulableWorker } from './snapshot';

export interface Applicant {
  readonly job: QueuedJob;
  /** Workers that may take it, best first. */
  readonly workers: readonly SchedulableWorker[];
}

/**
 * Gives each applicant, in order, a worker of its own. When all that fit one are taken, those before it move to other workers if that
 * frees one; they are never put out. So the set of applicants served is the best by order, and none is left that could have been
 * served beside those before it.
 * @see Kuhn 1955; that the greedy order is optimal: Edmonds & Fulkerson 1965, transversal matroids
 */
export function match(applicants: readonly Applicant[]): readonly { readonly job: QueuedJob; readonly worker: SchedulableWorker }[] {
  const holders: Holders = new Map();
  // Workers from which a search found no free one: no later search can either, so each pair is looked at once.
  const exhausted = new Set<string>();
  for (const applicant of applicants) {
    const visited = new Set<string>();
    if (!serve(applicant, holders, exhausted, visited)) for (const id of visited) exhausted.add(id);
  }
  return [...holders.values()].map(({ applicant, worker }) => ({ job: applicant.job, worker }));
}

/** By worker id. */
type Holders = Map<string, { readonly applicant: Applicant; readonly worker: SchedulableWorker }>;

function serve(applicant: Applicant, holders: Holders, exhausted: ReadonlySet<string>, visited: Set<string>): boolean {
  const free = applicant.workers.find((worker) => !holders.has(worker.id));
  if (free !== undefined) {
    holders.set(free.id, { applicant, worker: free });
    return true;
  }
  for (const worker of applicant.workers) {
    const holder = holders.get(worker.id);
    if (holder === undefined || visited.has(worker.id) || exhausted.has(worker.id)) continue;
    visited.add(worker.id);
    if (serve(holder.applicant, holders, exhausted, visited)) {
      holders.set(worker.id, { applicant, worker });
      return true;
    }
  }
  return false;
}
