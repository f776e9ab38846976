import fc from 'fast-check';
import { plan } from './plan';
import { PREEMPTION_GRACE_MS } from './preemption';
import { classOf } from './priority';
import type { QueuedJob, RunningJob, SchedulableWorker, Snapshot } from './snapshot';
import { MEMORY_SHARE } from './memory-fit';
import { GIBIBYTE, job, NOW_MS, running, snapshot, team, worker } from './testing/builders';
import { simulate } from './testing/simulate';

/** A job of 4 GiB, of which 1 GiB is its own; small enough for five on 8 GiB of memory. */
const SIZE = { memoryBytesEstimate: 3 * GIBIBYTE, sharedMemoryBytes: GIBIBYTE };
const sharer = (id: string, changes: Partial<QueuedJob> = {}) => job(id, { ...SIZE, shareKey: 'base@r1', ...changes });
const member = (id: string, workerId: string, changes: Partial<RunningJob> = {}) => running(id, workerId, { ...SIZE, shareKey: 'base@r1', ...changes });
/** Eight slots and so many jobs on it. */
const wide = (id: string, held = 0, changes: Partial<SchedulableWorker> = {}) => worker(id, { slots: 8, credit: 8 - held, busy: held > 0, ...changes });

/** "job>worker", sorted. */
const pairs = (seen: Snapshot): string[] => plan(seen).placements.map(({ jobId, workerId }) => `${jobId}>${workerId}`).sort();
const planned = (jobs: readonly QueuedJob[], workers: readonly SchedulableWorker[], live: readonly RunningJob[] = []) => pairs(snapshot(jobs, workers, { running: live }));

describe('who shares', () => {
  test('a free worker goes before a place beside others; when there are no more, places fill evenly', () => {
    const jobs = ['a', 'b', 'c', 'd', 'e', 'f'].map((id) => sharer(id));
    expect(planned([sharer('a')], [wide('v', 1), wide('w')], [member('x', 'v')])).toEqual(['a>w']);
    expect(planned(jobs, [wide('v', 1), wide('w')], [member('x', 'v')])).toEqual(['a>w', 'b>w', 'c>v', 'd>w', 'e>v', 'f>w']);
  });

  test('each placement names all that may be there with it', () => {
    const { placements } = plan(snapshot([sharer('a'), sharer('b')], [wide('w', 1)], { running: [member('x', 'w')] }));
    expect(placements.map(({ jobId, besideJobIds, workerSlots }) => [jobId, [...besideJobIds].sort(), workerSlots])).toEqual([['a', ['b', 'x'], 8], ['b', ['a', 'x'], 8]]);
    expect(plan(snapshot([sharer('a'), sharer('b')], [wide('w')])).placements.map(({ jobId, besideJobIds }) => [jobId, besideJobIds])).toEqual([['a', ['b']], ['b', ['a']]]);
  });

  test.each<[string, Partial<QueuedJob>, Partial<RunningJob>, Partial<SchedulableWorker>]>([
    ['of another key', { shareKey: 'other' }, {}, {}],
    ['that may not share', { shareKey: null }, {}, {}],
    ['of another class', { priority: 50 }, {}, {}],
    ['with one that runs alone', {}, { shareKey: null }, {}],
    ['with one that makes room', {}, { preemptedForJobId: 'other', stopping: true }, {}],
    ['on a worker that is cordoned', {}, {}, { cordoned: true }],
    ['on a worker that is away', {}, {}, { online: false }],
    ['on a worker without a free slot', {}, {}, { slots: 1, credit: 0 }],
    ['on a worker that takes none now', {}, {}, { credit: 0 }],
    ['on a worker without its labels', { workerSelector: { zone: 'a' } }, {}, {}],
    ['on a worker that does not run its kind', { kind: 'eval' }, {}, { jobKinds: ['fine-tune'] }],
    ['where it failed twice', { failedWorkerIds: ['w', 'w'] }, {}, {}],
    ['that adds more than is left', { sharedMemoryBytes: 6 * GIBIBYTE, memoryBytesEstimate: 7 * GIBIBYTE }, {}, {}],
    ['that adds more than the device has free for it', {}, {}, { memoryBytesFree: GIBIBYTE, modelInMemory: 'base@r1' }],
    ['of which more is on the device than it can have, by what was measured', { memoryCorrection: 2 }, { memoryCorrection: 2 }, {}],
  ])('nobody comes to others %s', (_what, changes, live, there) => {
    const other = worker('other', { busy: true, credit: 0, labels: { zone: 'a' } });
    expect(planned([sharer('j', changes)], [wide('w', 1, there), other], [member('x', 'w', live), running('y', 'other')])).toEqual([]);
  });

  test('as many as fit into memory, weights counted once', () => {
    const jobs = Array.from({ length: 8 }, (_, index) => sharer(`j${index}`));
    // 2 GiB of weights and 1 GiB for each of five; 92 % of 8 GiB are 7.36.
    expect(planned(jobs, [wide('w')])).toHaveLength(5);
    expect(planned(jobs, [wide('w', 3)], ['x', 'y', 'z'].map((id) => member(id, 'w')))).toHaveLength(2);
  });

  test('two teams share where both allow it; a quota of running jobs counts all', () => {
    const [mine, theirs] = [sharer('a', { teamId: 'one' }), sharer('b', { teamId: 'two' })];
    expect(planned([mine, theirs], [wide('w')])).toEqual(['a>w', 'b>w']);
    const quota = { teams: [team('team', { quota: { runningJobs: 2, gpuHoursPerMonth: null } })] };
    const seen = snapshot([sharer('a'), sharer('b'), sharer('c')], [wide('w')], quota);
    expect(pairs(seen)).toHaveLength(2);
    expect([...plan(seen).waiting.values()].map(({ code }) => code)).toEqual(['quota']);
  });

  test('what waits is told of both ways', () => {
    const { waiting } = plan(snapshot([sharer('j', { shareKey: 'other' }), job('alone')], [wide('w', 1)], { running: [member('x', 'w')] }));
    expect([waiting.get('j')?.text, waiting.get('alone')?.text]).toEqual([
      'waiting for a free worker or a place beside jobs on its base model: 1 worker fits and is busy',
      'waiting for a free worker: 1 worker fits and is busy',
    ]);
  });
});

describe('nobody waits longer because others share', () => {
  test('nobody comes to a worker that is the next of a job before it which never shares', () => {
    const live = [member('x', 'v', { estimatedFinishMs: NOW_MS + 60_000 }), member('y', 'w', { estimatedFinishMs: NOW_MS + 90_000 })];
    const workers = [wide('v', 1), wide('w', 1)];
    expect(planned([job('alone', { priority: 1 }), sharer('j')], workers, live)).toEqual(['j>w']);
    expect(planned([job('alone', { priority: 1 }), job('more', { priority: 1 }), sharer('j')], workers, live)).toEqual([]);
    expect(planned([job('alone'), sharer('j', { priority: 1 })], workers, live)).toEqual(['j>v']);
  });

  test('also when nobody knows how long those there will take', () => {
    expect(planned([job('alone', { priority: 1 }), sharer('j')], [wide('w', 1)], [member('x', 'w')])).toEqual([]);
  });

  test('before one that may share elsewhere only those come that are gone when the worker would have been free', () => {
    const live = [member('x', 'w', { estimatedFinishMs: NOW_MS + 600_000 })];
    const first = sharer('first', { priority: 1, shareKey: 'other' });
    expect(planned([first, sharer('short', { secondsEstimate: 600 }), sharer('long', { secondsEstimate: 601 }), sharer('unknown')], [wide('w', 1)], live)).toEqual(['short>w']);
    expect(planned([first, sharer('short', { secondsEstimate: 600 })], [wide('w', 1)], [member('x', 'w')])).toEqual([]);
  });

  test('a worker that is awaited for the model it holds is not kept busy', () => {
    const live = [member('x', 'held', { estimatedFinishMs: NOW_MS + 10_000 })];
    const waits = job('waits', { priority: 1, weightBytes: 4 * GIBIBYTE });
    const seen = snapshot([waits, sharer('j')], [wide('held', 1, { modelInMemory: 'base@r1' }), worker('free', { memoryBytesTotal: 5 * GIBIBYTE })], { running: live });
    expect(plan(seen).waiting.get('waits')?.code).toBe('model_locality');
    expect(pairs(seen)).toEqual([]);
  });

  test('a worker that has just ended its job is waited for, for a moment, by as many as there are such workers', () => {
    const returning = worker('back', { credit: 0, idleSinceMs: NOW_MS - 1_000 });
    const seen = snapshot([sharer('a'), sharer('b')], [wide('w', 1), returning], { running: [member('x', 'w')] });
    expect(pairs(seen)).toEqual(['b>w']);
    expect(plan(seen).lookAgainAtMs).toBe(NOW_MS + 29_000);
    expect(planned([sharer('a'), sharer('b')], [wide('w', 1), { ...returning, idleSinceMs: NOW_MS - 30_000 }], [member('x', 'w')])).toEqual(['a>w', 'b>w']);
  });

  test('a stream of jobs that share does not keep one that does not from its worker', () => {
    const minute = 60_000;
    const stream = Array.from({ length: 120 }, (_, index) => ({ job: sharer(`s${index}`, { secondsEstimate: 600 }), seconds: 600, arrivesAtMs: index * minute }));
    const alone = { job: job('alone', { secondsEstimate: 60 }), seconds: 60, arrivesAtMs: 5 * minute + 1 };
    const { firstStartMs, endedAtMs } = simulate({ teams: [], workers: [wide('w')], jobs: [...stream, alone], untilMs: 24 * 60 * minute });
    // Five fill the worker when it comes, and one more waits before it for a place, which it has at ten minutes.
    expect(firstStartMs.get('alone')).toBe(20 * minute);
    expect(endedAtMs.size).toBe(121);
    expect(Math.max(...endedAtMs.values())).toBeLessThan(5 * 60 * minute);
  });
});

describe('making room', () => {
  const since = { assignedAtMs: NOW_MS - PREEMPTION_GRACE_MS, queuedAtMs: NOW_MS - PREEMPTION_GRACE_MS, estimatedFinishMs: NOW_MS + 3_600_000 };
  const urgent = job('urgent', { priority: 60, queuedAtMs: NOW_MS });
  const asked = (live: readonly RunningJob[], workers: readonly SchedulableWorker[]) => plan(snapshot([urgent], workers, { running: live })).preemptions.map(({ workerId, victims }) => [workerId, victims.map(({ jobId }) => jobId).sort()]);

  test('all on the worker are asked, and the job is told so', () => {
    const { preemptions, waiting } = plan(snapshot([urgent], [wide('w', 2)], { running: [member('a', 'w', since), member('b', 'w', since)] }));
    expect(preemptions).toMatchObject([{ workerId: 'w', forJobId: 'urgent', victims: [{ jobId: 'a', attemptId: 'att-a', epoch: 1 }, { jobId: 'b' }] }]);
    expect(waiting.get('urgent')?.text).toBe('waiting for worker w: 2 jobs of a lower priority class write their checkpoints there and make room');
  });

  test('rather one that has run long than several that have run as long together', () => {
    const live = [member('a', 'v', { ...since, assignedAtMs: NOW_MS - 900_000 }), member('b', 'v', { ...since, assignedAtMs: NOW_MS - 900_000 }), running('c', 'w', { ...since, assignedAtMs: NOW_MS - 1_000_000 })];
    expect(asked(live, [wide('v', 2), wide('w', 1)])).toEqual([['w', ['c']]]);
  });

  test.each<[string, Partial<RunningJob>]>([
    ['has just started', { assignedAtMs: NOW_MS - 1 }],
    ['is of the same class', { priority: 50 }],
    ['has made room often enough', { preemptions: 3 }],
  ])('nobody is asked where one of them %s', (_what, changes) => {
    expect(asked([member('a', 'w', since), member('b', 'w', { ...since, ...changes })], [wide('w', 2)])).toEqual([]);
  });

  test('one that stops anyway is not asked again', () => {
    expect(asked([member('a', 'w', since), member('b', 'w', { ...since, stopping: true })], [wide('w', 2)])).toEqual([['w', ['a']]]);
  });
});

describe('properties', () => {
  const keys = fc.constantFrom(null, 'a@1', 'a@1', 'b@1');
  const sizes = fc.record({ memoryBytesEstimate: fc.integer({ min: 1, max: 9 }), own: fc.integer({ min: 1, max: 9 }) }).map(({ memoryBytesEstimate, own }) => ({ memoryBytesEstimate, sharedMemoryBytes: Math.min(own, memoryBytesEstimate) }));
  const anyJob = fc.record({ size: sizes, shareKey: keys, priority: fc.constantFrom(-1, 0, 0, 60), queuedAtMs: fc.nat(5), teamId: fc.constantFrom('t', 'u'), secondsEstimate: fc.option(fc.integer({ min: 1, max: 100 })) });
  const anyWorker = fc.record({
    ...{ slots: fc.integer({ min: 1, max: 4 }), memoryBytesTotal: fc.integer({ min: 8, max: 40 }), short: fc.nat(3), key: keys, priority: fc.constantFrom(-1, 0, 60), cordoned: fc.nat(5).map((n) => n === 0) },
    members: fc.array(fc.record({ size: sizes, ends: fc.option(fc.integer({ min: 1, max: 200 })), stopping: fc.nat(4).map((n) => n === 0), makesRoom: fc.nat(9).map((n) => n === 0) }), { maxLength: 3 }),
  });
  const anySnapshot = fc.tuple(fc.array(anyJob, { maxLength: 9 }), fc.array(anyWorker, { maxLength: 4 })).map(([jobs, workers]) => {
    const live: RunningJob[] = [];
    const fleet = workers.map(({ slots, memoryBytesTotal, short, key, priority, cordoned, members }, index) => {
      const there = key === null ? members.slice(0, 1) : members.slice(0, slots);
      there.forEach(({ size, ends, stopping, makesRoom }, at) =>
        live.push(running(`r${index}${at}`, `w${index}`, { ...size, shareKey: key, priority, estimatedFinishMs: ends === null ? null : NOW_MS + ends * 1000, stopping: stopping || makesRoom, preemptedForJobId: makesRoom ? 'elsewhere' : null })),
      );
      return worker(`w${index}`, { slots, credit: Math.max(0, slots - there.length - (short === 0 ? 1 : 0)), busy: there.length > 0, memoryBytesTotal, memoryBytesFree: memoryBytesTotal, cordoned });
    });
    return snapshot(jobs.map(({ size, ...changes }, index) => job(`j${index}`, { ...changes, ...size })), fleet, { running: live });
  });

  test('who is together on a worker has one key and one class, a slot each, memory for all, and is named to the others', () => {
    let together = 0;
    fc.assert(
      fc.property(anySnapshot, (seen) => {
        const { placements, waiting } = plan(seen);
        expect([...placements.map(({ jobId }) => jobId), ...waiting.keys()].sort()).toEqual(seen.jobs.map(({ id }) => id).sort());
        for (const there of seen.workers) {
          const came = placements.filter(({ workerId }) => workerId === there.id);
          if (came.length === 0) continue;
          const live = seen.running.filter(({ workerId }) => workerId === there.id);
          const all = [...live.map((one) => ({ ...one, id: one.jobId })), ...came.map(({ jobId }) => seen.jobs.find(({ id }) => id === jobId) as QueuedJob)];
          for (const { jobId, besideJobIds } of came) expect([...besideJobIds].sort()).toEqual(all.map(({ id }) => id).filter((id) => id !== jobId).sort());
          expect([there.cordoned, came.length <= there.credit, all.length <= there.slots, live.some(({ preemptedForJobId }) => preemptedForJobId !== null)]).toEqual([false, true, true, false]);
          const added = all.reduce((sum, { sharedMemoryBytes }) => sum + (sharedMemoryBytes ?? 0), 0);
          const weights = Math.max(...all.map(({ memoryBytesEstimate, sharedMemoryBytes }) => memoryBytesEstimate - (sharedMemoryBytes ?? 0)));
          expect(added + weights).toBeLessThanOrEqual(there.memoryBytesTotal * MEMORY_SHARE);
          if (all.length === 1) continue;
          together++;
          expect([new Set(all.map(({ shareKey }) => shareKey)).size, all[0]?.shareKey === null, new Set(all.map(({ priority }) => classOf(priority))).size]).toEqual([1, false, 1]);
        }
      }),
      { numRuns: 1000 },
    );
    expect(together).toBeGreaterThan(20);
  });

  test('whoever gets a worker where nobody may share gets it where some may', () => {
    fc.assert(
      fc.property(anySnapshot, (seen) => {
        const alone = plan({ ...seen, workers: seen.workers.map((one) => ({ ...one, slots: 1 })) });
        const shared = pairs(seen);
        for (const { jobId, workerId } of alone.placements) expect(shared).toContain(`${jobId}>${workerId}`);
      }),
    );
  });

  test('the order in which the snapshot lists things changes nothing', () => {
    fc.assert(
      fc.property(anySnapshot, (seen) => {
        const reversed = { ...seen, jobs: [...seen.jobs].reverse(), workers: [...seen.workers].reverse(), running: [...seen.running].reverse() };
        expect(pairs(reversed)).toEqual(pairs(seen));
        expect([...plan(reversed).waiting].sort()).toEqual([...plan(seen).waiting].sort());
      }),
    );
  });
});
