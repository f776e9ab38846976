import { plan } from './plan';
import { PREEMPTION_DEADLINE_MS, PREEMPTION_GRACE_MS, PREEMPTIONS_PER_JOB_MAX } from './preemption';
import { classOf } from './priority';
import type { QueuedJob, RunningJob, SchedulableWorker } from './snapshot';
import { busyWorker, GIBIBYTE, job, NOW_MS, randomSource, running, snapshot, team, worker } from './testing/builders';
import { simulate, type SimulatedJob } from './testing/simulate';

const urgent = (changes: Partial<QueuedJob> = {}) => job('urgent', { priority: 60, queuedAtMs: NOW_MS, ...changes });
/** Runs for long enough to be asked, and will for longer. */
const old = (id: string, workerId: string, changes: Partial<RunningJob> = {}) =>
  running(id, workerId, { assignedAtMs: NOW_MS - PREEMPTION_GRACE_MS, estimatedFinishMs: NOW_MS + 3_600_000, queuedAtMs: NOW_MS - PREEMPTION_GRACE_MS, ...changes });

const victims = (waiting: QueuedJob, live: readonly RunningJob[], workers: readonly SchedulableWorker[] = live.map(({ workerId }) => busyWorker(workerId))) =>
  plan(snapshot([waiting], workers, { running: live })).preemptions.flatMap(({ victims: asked }) => asked.map(({ jobId }) => jobId));

test('a job of a higher class gets room, with time for a checkpoint, and is told so', () => {
  const { preemptions, waiting } = plan(snapshot([urgent()], [busyWorker('w')], { running: [old('v', 'w')] }));
  expect(preemptions).toEqual([{ victims: [{ jobId: 'v', attemptId: 'att-v', epoch: 1 }], workerId: 'w', forJobId: 'urgent', deadlineMs: PREEMPTION_DEADLINE_MS }]);
  expect(waiting.get('urgent')).toMatchObject({ code: 'preemption_pending', text: 'waiting for worker w: a job of a lower priority class writes its checkpoint there and makes room' });
});

test('while one is being freed for it, nobody else is asked', () => {
  const live = [old('v', 'w', { stopping: true, preemptedForJobId: 'urgent' }), old('u', 'x')];
  const { preemptions, waiting } = plan(snapshot([urgent()], [busyWorker('w'), busyWorker('x')], { running: live }));
  expect(preemptions).toEqual([]);
  expect(waiting.get('urgent')?.code).toBe('preemption_pending');
});

test.each<[string, Partial<RunningJob>]>([
  ['is of the same class', { priority: 50 }],
  ['has just started', { assignedAtMs: NOW_MS - PREEMPTION_GRACE_MS + 1 }],
  ['has made room often enough', { preemptions: PREEMPTIONS_PER_JOB_MAX }],
  ['is stopping anyway', { stopping: true }],
  ['ends by itself before a checkpoint has to be there', { estimatedFinishMs: NOW_MS + PREEMPTION_DEADLINE_MS }],
  ['would by its age go before the other one', { priority: 49, queuedAtMs: NOW_MS - 20 * 60_000 }],
])('nobody is asked who %s', (_why, changes) => {
  expect(victims(urgent(), [old('v', 'w', changes)])).toEqual([]);
});

test.each<[string, QueuedJob, Partial<SchedulableWorker>]>([
  ['is too small', urgent({ memoryBytesEstimate: 9 * GIBIBYTE }), {}],
  ['has not the labels', urgent({ workerSelector: { gpu: 'h100' } }), {}],
  ['is cordoned', urgent(), { cordoned: true }],
  ['is where the job failed twice', urgent({ failedWorkerIds: ['w', 'w'] }), {}],
])('not on a worker that %s', (_why, waiting, changes) => {
  expect(victims(waiting, [old('v', 'w')], [busyWorker('w', changes), busyWorker('other', { labels: { gpu: 'h100' }, memoryBytesTotal: 80 * GIBIBYTE })])).toEqual([]);
});

test('nobody is asked for a job that may not run, or that will have a worker as soon', () => {
  const { preemptions } = plan(snapshot([urgent({ teamId: 't' })], [busyWorker('w')], { running: [old('v', 'w')], teams: [team('t', { quota: { runningJobs: 0, gpuHoursPerMonth: null } })] }));
  expect(preemptions).toEqual([]);
  expect(victims(urgent(), [old('v', 'w'), old('soon', 'x', { priority: 60, estimatedFinishMs: NOW_MS + 60_000 })])).toEqual([]);
});

test('who is asked first: teams beyond their share, then the lowest priority, then who has lost the least', () => {
  const borrower = [old('b1', 'w1', { teamId: 'b', priority: 5 }), old('b2', 'w2', { teamId: 'b', priority: 5 }), old('b3', 'w3', { teamId: 'b', priority: 4 })];
  const lender = old('l', 'w4', { teamId: 'l', priority: -50 });
  expect(victims(urgent(), [...borrower, lender])).toEqual(['b3']);
  expect(victims(urgent(), [old('x', 'w1', { priority: -1 }), old('y', 'w2', { priority: -2 })])).toEqual(['y']);
  expect(victims(urgent(), [old('long', 'w1', { assignedAtMs: 0 }), old('short', 'w2')])).toEqual(['short']);
});

test.each(Array.from({ length: 25 }, (_, seed) => seed))('no two jobs ever evict each other, nobody is asked too often or too soon, and all is done in the end (seed %i)', (seed) => {
  const random = randomSource(seed);
  const pick = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)] as T;
  const jobs = Array.from({ length: 40 }, (_, index): SimulatedJob => {
    const seconds = 60 + Math.floor(7200 * random());
    return {
      job: job(`j${index}`, { teamId: pick(['a', 'b', 'c']), priority: Math.floor(200 * random()) - 100, memoryBytesEstimate: pick([1, 6]) * GIBIBYTE, secondsEstimate: random() < 0.7 ? seconds * (0.5 + random()) : null }),
      seconds,
      arrivesAtMs: Math.floor(4 * 3_600_000 * random()),
    };
  });
  const priorities = new Map(jobs.map(({ job: { id, priority } }) => [id, priority]));
  const workers = [worker('s1', { memoryBytesTotal: 4 * GIBIBYTE, memoryBytesFree: 4 * GIBIBYTE }), worker('l1'), worker('l2')];
  const simulated = simulate({
    teams: [team('a'), team('b', { weight: 2 }), team('c')],
    workers,
    jobs,
    untilMs: 96 * 3_600_000,
    onPass: (result, seen) => {
      for (const victim of result.preemptions.flatMap(({ victims: asked }) => asked)) {
        const live = seen.running.find(({ jobId }) => jobId === victim.jobId);
        expect(seen.nowMs - (live?.assignedAtMs ?? seen.nowMs)).toBeGreaterThanOrEqual(PREEMPTION_GRACE_MS);
      }
    },
  });
  const { endedAtMs } = simulated;
  const preemptions = simulated.preemptions.flatMap(({ victims: asked, forJobId }) => asked.map((victim) => ({ victim, forJobId })));
  const evicted = new Set(preemptions.map(({ victim, forJobId }) => `${forJobId}>${victim.jobId}`));
  for (const { victim, forJobId } of preemptions) {
    expect(evicted.has(`${victim.jobId}>${forJobId}`)).toBe(false);
    // Strictly lower along every chain of evictions: so there is no circle of any length.
    expect(classOf(priorities.get(victim.jobId) ?? 0)).toBeLessThan(classOf(priorities.get(forJobId) ?? 0));
  }
  for (const { job: { id } } of jobs) expect(preemptions.filter(({ victim }) => victim.jobId === id).length).toBeLessThanOrEqual(PREEMPTIONS_PER_JOB_MAX);
  expect(endedAtMs.size).toBe(jobs.length);
});
