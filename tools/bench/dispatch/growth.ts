import { until } from '@tunefleet/testing';
import { Dispatch } from './latency';
import { LightWorker, wallMs } from './light-worker';
import type { BenchService } from './service';
import { latencyRows, progressOf } from './statistics';
import type { Row } from '../report/row';

/** Labels that no worker has. */
const NOWHERE = { zone: 'nowhere' };

/**
 * With more and more jobs in the queue: how long an urgent job takes to an idle worker while none of the others fits it, and how long a worker
 * that becomes free waits for its next job when all of them do.
 */
export async function measureGrowth(service: BenchService, sizes: readonly number[], rounds: number): Promise<Row[]> {
  const [worker] = await LightWorker.connect(service.grpcAddress, 1);
  if (worker === undefined) throw new Error('no worker');
  const rows: Row[] = [];
  const progress = progressOf('growth', sizes.length);
  let queued = 0;
  try {
    for (const [index, size] of sizes.entries()) {
      await service.insertQueued(size - queued, { selector: NOWHERE });
      queued = size;
      const dispatch = await Dispatch.open(service, worker);
      const urgent: number[] = [];
      for (let round = 0; round < rounds; round++) urgent.push((await dispatch.once(100)).submitToWorker);
      rows.push(...latencyRows(`submit to worker, ${size} others queued`, urgent));
      await service.db.query(`update job set worker_selector = '{}' where status = 'queued'`);
      rows.push(...latencyRows(`free worker to its next job, ${size} queued`, await nextJobs(worker, rounds)));
      await service.db.query(`update job set worker_selector = $1 where status = 'queued'`, [JSON.stringify(NOWHERE)]);
      queued -= rounds;
      progress(index + 1);
    }
    return rows;
  } finally {
    worker.close();
  }
}

async function nextJobs(worker: LightWorker, rounds: number): Promise<number[]> {
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const assigned: { readonly atMs: number }[] = [];
    let ended: Promise<void> | null = null;
    worker.onAssign = ({ attempt, atMs }) => {
      assigned.push({ atMs });
      worker.accept(attempt);
      ended = worker.finish(attempt);
    };
    const startedMs = wallMs();
    worker.credit();
    await until('the next job', () => ended !== null);
    await ended;
    times.push((assigned[0]?.atMs ?? Number.NaN) - startedMs);
  }
  return times;
}
