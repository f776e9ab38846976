import { until } from '@tunefleet/testing';
import { LightWorker } from './light-worker';
import type { BenchService } from './service';
import { cpuRows, progressOf } from './statistics';
import type { Row } from '../report/row';

/** How many jobs a second get to workers: when as many workers are idle as jobs come, and when each worker ends its job and wants the next one. */
export async function measureAssignments(service: BenchService, workers: number): Promise<Row[]> {
  const fleet = await LightWorker.connect(service.grpcAddress, workers);
  try {
    const burst = await measureBurst(service, fleet);
    const before = await service.cpuMs();
    const turnover = await measureTurnover(service, fleet, 2 * workers);
    const after = await service.cpuMs();
    return [
      { name: `assignments, ${workers} jobs for ${workers} idle workers at once`, unit: '1/s', value: burst },
      { name: `assignments, ${workers} workers that end each job at once and take the next`, unit: '1/s', value: turnover },
      ...cpuRows('each of these jobs, from placement to its end', before, after, 2 * workers),
    ];
  } finally {
    for (const worker of fleet) worker.close();
  }
}

async function measureBurst(service: BenchService, fleet: readonly LightWorker[]): Promise<number> {
  for (const worker of fleet) worker.credit();
  await until('all workers to be idle', async () => (await service.one<{ idle: string }>('select count(*) as idle from worker where credit = 1')).idle === `${fleet.length}`);
  const endings: Promise<void>[] = [];
  let assigned = 0;
  let lastMs = 0;
  const progress = progressOf('assignments at once', fleet.length);
  for (const worker of fleet) {
    worker.onAssign = ({ attempt }) => {
      lastMs = performance.now();
      progress(++assigned);
      worker.accept(attempt);
      // Ended only afterwards, so that nothing but assignments is measured.
      endings.push(until('all assignments', () => assigned === fleet.length).then(() => worker.finish(attempt)));
    };
  }
  await service.insertQueued(fleet.length);
  const startedAt = performance.now();
  await until('all assignments', () => assigned === fleet.length);
  await Promise.all(endings);
  return (1000 * assigned) / (lastMs - startedAt);
}

async function measureTurnover(service: BenchService, fleet: readonly LightWorker[], jobs: number): Promise<number> {
  let assigned = 0;
  const progress = progressOf('assignments in turn', jobs);
  for (const worker of fleet) {
    worker.onAssign = ({ attempt }) => {
      progress(++assigned);
      worker.accept(attempt);
      void worker.finish(attempt).then(() => worker.credit());
    };
  }
  await service.insertQueued(jobs);
  for (const worker of fleet) worker.credit();
  const startedAt = performance.now();
  await until('all assignments', () => assigned >= jobs);
  const seconds = (performance.now() - startedAt) / 1000;
  await until('all jobs to end', async () => (await service.one<{ running: string }>(`select count(*) as running from job where status in ('running', 'queued')`)).running === '0');
  return assigned / seconds;
}
