import type { QueuedJob, RunningJob, SchedulableWorker, Snapshot, TeamAccount } from '../snapshot';

export const GIBIBYTE = 1024 ** 3;
/** The specs' present, in the middle of a month. */
export const NOW_MS = 1_000_000;

export const job = (id: string, changes: Partial<QueuedJob> = {}): QueuedJob => ({
  id,
  kind: 'fine-tune',
  epoch: 0,
  teamId: 'team',
  priority: 0,
  queuedAtMs: 0,
  notBeforeMs: null,
  baseModel: 'base@r1',
  memoryBytesEstimate: GIBIBYTE,
  memoryCorrection: 1,
  shareKey: null,
  sharedMemoryBytes: null,
  weightBytes: null,
  secondsEstimate: null,
  workerSelector: {},
  localitySinceMs: null,
  resumeCheckpointId: null,
  failedWorkerIds: [],
  lastWorkerId: null,
  ...changes,
});

export const worker = (id: string, changes: Partial<SchedulableWorker> = {}): SchedulableWorker => ({
  id,
  name: id,
  bootId: `boot-${id}`,
  sessionId: `session-${id}`,
  online: true,
  cordoned: false,
  busy: false,
  slots: 1,
  credit: 1,
  jobKinds: ['fine-tune', 'eval'],
  labels: {},
  memoryBytesTotal: 8 * GIBIBYTE,
  memoryBytesFree: 8 * GIBIBYTE,
  modelsOnDisk: [],
  modelInMemory: null,
  idleSinceMs: null,
  ...changes,
});

export const busyWorker = (id: string, changes: Partial<SchedulableWorker> = {}): SchedulableWorker => worker(id, { busy: true, credit: 0, ...changes });

export const running = (jobId: string, workerId: string, changes: Partial<RunningJob> = {}): RunningJob => ({
  jobId,
  attemptId: `att-${jobId}`,
  epoch: 1,
  teamId: 'team',
  workerId,
  memoryBytesEstimate: GIBIBYTE,
  memoryCorrection: 1,
  shareKey: null,
  sharedMemoryBytes: null,
  priority: 0,
  queuedAtMs: 0,
  assignedAtMs: 0,
  gpuSeconds: (NOW_MS - (changes.assignedAtMs ?? 0)) / 1000,
  monthGpuSeconds: (NOW_MS - (changes.assignedAtMs ?? 0)) / 1000,
  estimatedFinishMs: null,
  secondsEstimate: null,
  preemptions: 0,
  stopping: false,
  preemptedForJobId: null,
  ...changes,
});

export const team = (id: string, changes: Partial<TeamAccount> = {}): TeamAccount => ({
  id,
  name: id,
  weight: 1,
  decayedGpuSeconds: 0,
  monthGpuSeconds: 0,
  quota: { runningJobs: null, gpuHoursPerMonth: null },
  ...changes,
});

export const snapshot = (jobs: readonly QueuedJob[], workers: readonly SchedulableWorker[], changes: Partial<Snapshot> = {}): Snapshot => ({
  nowMs: NOW_MS,
  jobs,
  workers,
  running: [],
  teams: [],
  jobsNotShown: 0,
  ...changes,
});

/** A seeded source of numbers in [0, 1): mulberry32. */
export function randomSource(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
