import type { Change, Row } from './journal';
import type { Outcome, Told } from './rules';

/**
 * Rules for those who are on one worker together, from the order of the writes: whoever places, or asks for room, holds the worker's lock. An attempt
 * counts as there until the write that ends it.
 */
export function brokenSharing(told: readonly Told[], changes: readonly Change[], { attempts, jobs, workers }: Outcome): string[] {
  const broken: string[] = [];
  const [attemptNow, jobNow] = [before('attempt', attempts, changes), before('job', jobs, changes)];
  const jobOf = (attempt: Row): Row | undefined => jobNow.get(attempt['job_id']);
  const othersOf = (attempt: Row): Row[] => [...attemptNow.values()].filter((other) => other['worker_id'] === attempt['worker_id'] && other['id'] !== attempt['id'] && other['status'] !== 'finished');

  changes.forEach(({ table, before: was, after, side, xid }, index) => {
    if (table === 'job') jobNow.set(after['id'], after);
    if (table !== 'attempt') return;
    attemptNow.set(after['id'], after);
    const others = othersOf(after);
    if (was === null && others.length > 0) {
      const who = `${String(after['id'])} by ${side}`;
      const worker = workers.find(({ id }) => id === after['worker_id']);
      const key = jobOf(after)?.['share_key'] ?? null;
      const { besideJobIds = [] } = told.find(({ made }) => made === after['id']) ?? {};
      if (others.length >= Number(worker?.['slots'] ?? 1)) broken.push(`${who}: came to ${others.length} on a worker of ${String(worker?.['slots'])} slots`);
      if (others.some((other) => other['slot'] === after['slot'])) broken.push(`${who}: came to slot ${String(after['slot'])}, which is taken`);
      if (key === null || others.some((other) => jobOf(other)?.['share_key'] !== key)) broken.push(`${who}: came to those of another key`);
      if (others.some((other) => other['preempted_for_job_id'] !== null)) broken.push(`${who}: came to those that make room`);
      if (others.some((other) => !besideJobIds.includes(String(other['job_id'])))) broken.push(`${who}: came to one that it was not to run beside`);
    }
    // By the end of the transaction all are asked.
    const isAsked = after['preempted_for_job_id'] !== null && was?.['preempted_for_job_id'] === null;
    const isLast = changes.slice(index + 1).every((later) => later.xid !== xid || later.table !== 'attempt');
    if (!isAsked || !isLast) return;
    const unasked = others.filter((other) => other['preempted_for_job_id'] === null && isWanted(other, jobOf(other)));
    for (const other of unasked) broken.push(`${String(other['id'])}: was not asked for room when ${String(after['id'])} was`);
  });
  return broken;
}

/** Nobody has asked for its job back. */
function isWanted(attempt: Row, job: Row | undefined): boolean {
  return job?.['status'] === 'running' && job['epoch'] === attempt['epoch'] && job['stop_reason'] === null;
}

/** The rows as the race found them. */
function before(table: Change['table'], rows: readonly Row[], changes: readonly Change[]): Map<unknown, Row> {
  const found = new Map<unknown, Row>();
  for (const row of rows) {
    const first = changes.find((change) => change.table === table && change.after['id'] === row['id']);
    const was = first === undefined ? row : first.before;
    if (was !== null) found.set(row['id'], was);
  }
  return found;
}
