import { silentLogger } from '@tunefleet/foundation';
import type { WorkerRecord } from '@tunefleet/ports';
import { ServiceMetrics, type ServiceMetricsDeps } from './service-metrics';

const worker = (status: string, cordoned = false): WorkerRecord => ({ status, cordoned }) as WorkerRecord;

function metricsOf(changes: Partial<ServiceMetricsDeps['records']> = {}): ServiceMetrics {
  return new ServiceMetrics({
    records: {
      countJobs: () => Promise.resolve({ queued: 7, running: 2 }),
      listWorkers: () => Promise.resolve([worker('online'), worker('online', true), worker('offline')]),
      countLiveAttempts: () => Promise.resolve(new Map([['w-1', 2]])),
      ...changes,
    },
    outbox: { lagMs: () => Promise.resolve(1_500) },
    queue: { counts: (queue) => Promise.resolve({ waiting: queue === 'tune' ? 3 : 0, active: 1, failed: 0 }) },
    logger: silentLogger,
  });
}

const loops = (leaseExpired: number) => ({ status: () => ({ loops: [], repairs: { lease_expired: leaseExpired, outbox_stale: 0 } as never }) });

test('the record, the loops and the repairs as series; states without anything in them are there too', async () => {
  const metrics = metricsOf();
  metrics.loopRan({ loop: 'scheduler', ms: 30, failed: false });
  metrics.loopRan({ loop: 'scheduler', ms: 700, failed: true });
  await metrics.text(loops(1));
  const lines = (await metrics.text(loops(4))).split('\n');
  expect(lines).toEqual(
    expect.arrayContaining([
      'tunefleet_record_up 1',
      'tunefleet_jobs{status="queued"} 7',
      'tunefleet_jobs{status="paused"} 0',
      'tunefleet_workers{status="online"} 2',
      'tunefleet_workers{status="suspect"} 0',
      'tunefleet_workers_busy 1',
      'tunefleet_workers_cordoned 1',
      'tunefleet_outbox_lag_seconds 1.5',
      'tunefleet_queue_messages{queue="tune",state="waiting"} 3',
      'tunefleet_repairs_total{kind="lease_expired"} 4',
      'tunefleet_repairs_total{kind="outbox_stale"} 0',
      'tunefleet_loop_errors_total{loop="scheduler"} 1',
      'tunefleet_loop_seconds_bucket{le="0.025",loop="scheduler"} 0',
      'tunefleet_loop_seconds_bucket{le="0.05",loop="scheduler"} 1',
      'tunefleet_loop_seconds_count{loop="scheduler"} 2',
    ]),
  );
});

test('a record that does not answer takes its part with it, and only that', async () => {
  let isAway = false;
  const metrics = metricsOf({ countJobs: () => (isAway ? Promise.reject(new Error('gone')) : Promise.resolve({ queued: 1 })) });
  expect(await metrics.text(loops(1))).toContain('tunefleet_jobs{status="queued"} 1');
  isAway = true;
  const text = await metrics.text(loops(2));
  expect(text).toContain('tunefleet_record_up 0');
  expect(text).toContain('tunefleet_repairs_total{kind="lease_expired"} 2');
  expect(text).not.toContain('tunefleet_jobs{');
});
