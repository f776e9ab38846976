/**
 * `npm run bench -- schedule`: one pass of the scheduler's pure core over a growing queue and 500 workers. Arguments after `--`: --workers, --sizes, --rounds.
 * "alike": every job asks for the same; "different": no two jobs and no two workers are equal in memory, model, priority, team and estimate.
 * "free" begins with every worker idle, "saturated" with every worker busy, so that reasons, positions and forecasts are all there is to do; "shared"
 * with one job on each worker of eight slots, and half of all jobs may share one with those on their model.
 */
import { parseArgs } from 'node:util';
import { plan, type QueuedJob, type RunningJob, type SchedulableWorker, type Snapshot, type TeamAccount } from '@tunefleet/domain-scheduling';
import { uniformAt } from '@tunefleet/foundation';
import { count, countList } from './report/options';
import type { Row } from './report/row';

const GIBIBYTE = 1024 ** 3;
const NOW_MS = Date.UTC(2026, 0, 15);
const TEAMS = 20;
const MODELS = 40;

export async function run(args: string[]): Promise<Row[]> {
  const { values } = parseArgs({
    args,
    options: { workers: { type: 'string', default: '500' }, sizes: { type: 'string', default: '100,1000,10000,100000' }, rounds: { type: 'string', default: '20' } },
  });
  const workers = count('workers', values.workers);
  const roundsMax = count('rounds', values.rounds);
  const rows: Row[] = [];
  for (const size of countList('sizes', values.sizes)) {
    for (const variety of ['alike', 'different'] as const) {
      for (const load of ['free', 'saturated', 'shared'] as const) {
        const snapshot = snapshotOf({ jobs: size, workers, variety, load });
        // Large queues take long enough to be measured with fewer passes.
        const rounds = Math.max(5, Math.min(roundsMax, Math.ceil(400_000 / size)));
        const times = timePasses(snapshot, rounds);
        const name = `pass over ${size} ${variety} queued x ${workers} ${load} workers`;
        rows.push({ name: `${name}, p50`, unit: 'ms', value: percentile(times, 0.5) }, { name: `${name}, p99`, unit: 'ms', value: percentile(times, 0.99) });
        process.stderr.write(`${name}: ${percentile(times, 0.5).toFixed(1)} ms\n`);
      }
    }
  }
  return Promise.resolve(rows);
}

function timePasses(snapshot: Snapshot, rounds: number): number[] {
  const places = snapshot.workers.reduce((sum, worker) => sum + (worker.busy && worker.slots === 1 ? 0 : worker.credit), 0);
  const expected = Math.min(snapshot.jobs.length, places);
  const times: number[] = [];
  // The first passes only warm the compiler up.
  for (let round = -3; round < rounds; round++) {
    const started = performance.now();
    const { placements, waiting } = plan(snapshot);
    if (round >= 0) times.push(performance.now() - started);
    if (placements.length + waiting.size !== snapshot.jobs.length || placements.length > expected) throw new Error(`${placements.length} placed and ${waiting.size} waiting of ${snapshot.jobs.length}`);
  }
  return times;
}

interface Shape {
  readonly jobs: number;
  readonly workers: number;
  readonly variety: 'alike' | 'different';
  readonly load: 'free' | 'saturated' | 'shared';
}

function snapshotOf({ jobs, workers, variety, load }: Shape): Snapshot {
  const isVaried = variety === 'different';
  const isBusy = load !== 'free';
  const isShared = load === 'shared';
  const fleet = Array.from({ length: workers }, (_, index) => workerOf(index, isVaried, isBusy)).map((worker) => (isShared ? { ...worker, slots: 8, credit: 7 } : worker));
  return {
    nowMs: NOW_MS,
    jobs: Array.from({ length: jobs }, (_, index) => jobOf(index, isVaried)).map((job, index) => (isShared && index % 2 === 0 ? sharing(job, job.baseModel) : job)),
    workers: fleet,
    running: isBusy ? fleet.map((worker, index) => (isShared ? sharing(runningOf(index, worker.id), worker.modelInMemory ?? '') : runningOf(index, worker.id))) : [],
    teams: Array.from({ length: TEAMS }, (_, index) => teamOf(index)),
    jobsNotShown: 0,
  };
}

const sharing = <J extends QueuedJob | RunningJob>(job: J, shareKey: string): J => ({ ...job, shareKey, sharedMemoryBytes: job.memoryBytesEstimate / 8 });

const drawn = (stream: number, index: number): number => uniformAt(1, stream, index);

function workerOf(index: number, isVaried: boolean, isBusy: boolean): SchedulableWorker {
  const memoryBytesTotal = isVaried ? (16 + 64 * drawn(1, index)) * GIBIBYTE : 24 * GIBIBYTE;
  const model = isVaried ? `model-${Math.floor(MODELS * drawn(2, index))}@main` : 'model-0@main';
  return {
    id: `wrk-${index}`,
    name: `gpu-${index}`,
    bootId: 'boot',
    sessionId: 'session',
    online: true,
    cordoned: false,
    busy: isBusy,
    slots: 1,
    credit: isBusy ? 0 : 1,
    jobKinds: ['fine-tune', 'eval'],
    labels: isVaried ? { zone: `zone-${index % 4}` } : {},
    memoryBytesTotal,
    memoryBytesFree: memoryBytesTotal,
    modelsOnDisk: [model],
    modelInMemory: model,
    idleSinceMs: null,
  };
}

function jobOf(index: number, isVaried: boolean): QueuedJob {
  return {
    id: `ftjob-${index}`,
    kind: 'fine-tune',
    epoch: 0,
    teamId: `team-${isVaried ? Math.floor(TEAMS * drawn(3, index)) : 0}`,
    priority: isVaried ? Math.floor(-100 + 200 * drawn(4, index)) : 0,
    queuedAtMs: NOW_MS - Math.floor(3_600_000 * drawn(5, index)),
    notBeforeMs: null,
    baseModel: isVaried ? `model-${Math.floor(MODELS * drawn(6, index))}@main` : 'model-0@main',
    memoryBytesEstimate: isVaried ? (2 + 70 * drawn(7, index)) * GIBIBYTE : 8 * GIBIBYTE,
    memoryCorrection: 1,
    shareKey: null,
    sharedMemoryBytes: null,
    weightBytes: 2 * GIBIBYTE,
    secondsEstimate: isVaried ? 60 + 7200 * drawn(8, index) : 600,
    workerSelector: isVaried && index % 5 === 0 ? { zone: `zone-${index % 4}` } : {},
    localitySinceMs: null,
    resumeCheckpointId: null,
    failedWorkerIds: isVaried && index % 10 === 0 ? [`wrk-${index % 500}`, `wrk-${index % 500}`] : [],
    lastWorkerId: null,
  };
}

function runningOf(index: number, workerId: string): RunningJob {
  return {
    jobId: `run-${index}`,
    attemptId: `att-${index}`,
    epoch: 1,
    teamId: `team-${index % TEAMS}`,
    workerId,
    memoryBytesEstimate: 8 * GIBIBYTE,
    memoryCorrection: 1,
    shareKey: null,
    sharedMemoryBytes: null,
    priority: index % 3 === 0 ? -10 : 0,
    queuedAtMs: NOW_MS - 7_200_000,
    assignedAtMs: NOW_MS - Math.floor(3_600_000 * drawn(9, index)),
    gpuSeconds: Math.floor(3_600 * drawn(9, index)),
    monthGpuSeconds: Math.floor(3_600 * drawn(9, index)),
    estimatedFinishMs: NOW_MS + Math.floor(3_600_000 * drawn(10, index)),
    secondsEstimate: 3600,
    preemptions: 0,
    stopping: false,
    preemptedForJobId: null,
  };
}

function teamOf(index: number): TeamAccount {
  return { id: `team-${index}`, name: `team-${index}`, weight: 1 + (index % 3), decayedGpuSeconds: 10_000 * drawn(11, index), monthGpuSeconds: 0, quota: { runningJobs: null, gpuHoursPerMonth: null } };
}

function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? NaN;
}
