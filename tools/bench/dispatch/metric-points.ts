import { sleep } from '@tunefleet/foundation';
import { until } from '@tunefleet/testing';
import { LightWorker } from './light-worker';
import type { BenchService } from './service';
import { cpuRows, latencyRows } from './statistics';
import type { Row } from '../report/row';

const WORKERS = 8;
const VALUES = 4;
/** As an agent's event log cuts its batches. */
const BATCH_EVENTS = 500;
const PACED_POINTS_PER_SECOND = 5_000;
const POLL_MS = 20;

/** Points that workers tell, until they are committed; and how old they are when the API shows them. */
export async function measureMetricPoints(service: BenchService, seconds: number): Promise<Row[]> {
  const fleet = await LightWorker.connect(service.grpcAddress, WORKERS);
  try {
    const jobIds = await begin(service, fleet);
    process.stderr.write(`metric points: ${3 * seconds} s left\n`);
    const before = await service.cpuMs();
    const { points, rate: sustained } = await tellAtFullSpeed(service, fleet, seconds);
    const after = await service.cpuMs();
    const { committed, shown, rate } = await tellPaced(service, fleet, jobIds, 2 * seconds);
    return [
      { name: `metric points committed, ${WORKERS} workers at full speed`, unit: '1/s', value: sustained },
      ...cpuRows('a thousand points', before, after, points / 1000),
      ...latencyRows(`metric points at ${PACED_POINTS_PER_SECOND}/s (kept up: ${rate.toFixed(0)}/s): told to committed`, committed),
      ...latencyRows('the same: told to shown by the API', shown),
    ];
  } finally {
    for (const worker of fleet) worker.close();
  }
}

/** @returns the job of each worker */
async function begin(service: BenchService, fleet: readonly LightWorker[]): Promise<string[]> {
  const jobs = new Map<LightWorker, string>();
  for (const worker of fleet) {
    worker.onAssign = ({ attempt }) => {
      jobs.set(worker, attempt.jobId);
      worker.accept(attempt);
    };
    worker.credit();
  }
  await service.insertQueued(fleet.length);
  await until('all jobs to run', () => jobs.size === fleet.length);
  return fleet.map((worker) => jobs.get(worker) as string);
}

async function tellAtFullSpeed(service: BenchService, fleet: readonly LightWorker[], seconds: number): Promise<{ readonly points: number; readonly rate: number }> {
  const startedAt = performance.now();
  const untilMs = startedAt + 1000 * seconds;
  await Promise.all(
    fleet.map(async (worker) => {
      for (let step = 1; performance.now() < untilMs; step += BATCH_EVENTS) await worker.report(Array.from({ length: BATCH_EVENTS }, (_, index) => pointsOf(step + index)));
    }),
  );
  const took = (performance.now() - startedAt) / 1000;
  const points = Number((await service.one<{ points: string }>('select count(*) as points from metric_point')).points);
  return { points, rate: points / took };
}

/** Steps come at an even pace; each worker sends what has gathered once its last batch is stored, as agents do. */
async function tellPaced(service: BenchService, fleet: readonly LightWorker[], jobIds: readonly string[], seconds: number): Promise<{ readonly committed: number[]; readonly shown: number[]; readonly rate: number }> {
  const everyMs = (1000 * VALUES * fleet.length) / PACED_POINTS_PER_SECOND;
  const firstStep = 1_000_000;
  const startedAt = performance.now();
  const steps = Math.floor((1000 * seconds) / everyMs);
  const toldAt = (step: number): number => startedAt + (step - firstStep) * everyMs;
  const committed: number[] = [];
  const shown: number[] = [];
  const tell = async (worker: LightWorker): Promise<void> => {
    for (let next = firstStep; next < firstStep + steps; ) {
      const due = Math.min(firstStep + steps, firstStep + Math.floor((performance.now() - startedAt) / everyMs) + 1, next + BATCH_EVENTS);
      if (due <= next) {
        await sleep(1);
        continue;
      }
      await worker.report(Array.from({ length: due - next }, (_, index) => pointsOf(next + index)));
      for (let step = next; step < due; step++) committed.push(performance.now() - toldAt(step));
      next = due;
    }
  };
  const look = async (): Promise<void> => {
    const jobId = jobIds[0] as string;
    for (let seen = firstStep - 1; seen < firstStep + steps - 1; await sleep(POLL_MS)) {
      const { data } = await service.client.jobs.metrics(jobId, { name: 'train_loss', sinceStep: seen, limit: 1000 });
      for (const { step } of data) shown.push(performance.now() - toldAt(step));
      seen = data.at(-1)?.step ?? seen;
    }
  };
  await Promise.all([...fleet.map(tell), look()]);
  return { committed, shown, rate: (steps * VALUES * fleet.length * 1000) / (performance.now() - startedAt) };
}

function pointsOf(step: number): { readonly $case: 'metrics'; readonly value: { readonly step: number; readonly values: Record<string, number> } } {
  return { $case: 'metrics', value: { step, values: { train_loss: 1 / step, learning_rate: 1e-4, grad_norm: 0.5, tokens_per_second: 1234.5 } } };
}
