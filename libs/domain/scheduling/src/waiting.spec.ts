import fc from 'fast-check';
import { correctedRatio } from './memory-fit';
import { plan } from './plan';
import type { QueuedJob, SchedulableWorker, Snapshot } from './snapshot';
import { SuffixMinima } from './suffix-minima';
import { busyWorker, GIBIBYTE, job, NOW_MS, running, snapshot, team, worker } from './testing/builders';

const waitingOf = (waiting: QueuedJob, workers: readonly SchedulableWorker[], changes: Partial<Snapshot> = {}) => plan(snapshot([waiting], workers, changes)).waiting.get(waiting.id);

describe('one reason, the most fundamental', () => {
  const selector = { workerSelector: { gpu: 'h100', zone: 'b' } };
  const quota = (changes: object) => ({ teams: [team('team', { quota: { runningJobs: null, gpuHoursPerMonth: null, ...changes } })] });

  test('labels that no worker on record has', () => {
    expect(waitingOf(job('j', { ...selector, memoryBytesEstimate: 99 * GIBIBYTE }), [worker('w', { labels: { gpu: 'h100' } }), worker('off', { online: false })])).toMatchObject({
      code: 'misconfigured',
      text: 'asks for a worker with gpu=h100, zone=b, 2 workers are on record and none has: label a worker so, or submit the job with another worker_selector',
    });
  });

  test('labels that only a worker has that is away', () => {
    expect(waitingOf(job('j', selector), [worker('w'), worker('off', { online: false, labels: selector.workerSelector })])).toMatchObject({ code: 'no_fitting_worker', text: 'waiting for a worker with gpu=h100, zone=b: none is online' });
  });

  test('only workers with the labels count', () => {
    expect(waitingOf(job('j', selector), [worker('w'), busyWorker('x', { labels: { ...selector.workerSelector, more: 'x' } })])).toMatchObject({ code: 'workers_busy', text: 'waiting for a free worker: 1 worker fits and is busy' });
    expect(plan(snapshot([job('j', selector)], [worker('w'), worker('x', { labels: selector.workerSelector })])).placements).toMatchObject([{ workerId: 'x' }]);
  });

  test('too large goes before a quota that is used up, that before a wait after a failure, that before busy workers', () => {
    const changes = { ...quota({ runningJobs: 1 }), running: [running('r', 'w')] };
    expect(waitingOf(job('j', { memoryBytesEstimate: 99 * GIBIBYTE }), [busyWorker('w')], changes)?.code).toBe('exceeds_every_worker');
    expect(waitingOf(job('j', { notBeforeMs: NOW_MS + 1 }), [busyWorker('w')], changes)).toMatchObject({ code: 'quota', text: 'team team may run 1 job at once and does: waiting for one to end, or for a higher quota' });
    expect(waitingOf(job('j', { notBeforeMs: NOW_MS + 1 }), [busyWorker('w')])?.code).toBe('after_failure');
  });

  test('GPU-hours of this month, with what runs so far', () => {
    const used = { teams: [team('team', { monthGpuSeconds: 3000, quota: { runningJobs: null, gpuHoursPerMonth: 1 } })] };
    expect(waitingOf(job('j'), [worker('w')], used)).toBeUndefined();
    expect(waitingOf(job('j'), [worker('w')], { ...used, running: [running('r', 'x', { assignedAtMs: NOW_MS - 600_000 })] })).toMatchObject({
      code: 'quota',
      text: 'team team has used its 1 GPU-hours of this month: it goes on from 1970-02-01 on, or with a higher quota',
    });
  });

  test('a quota of running jobs holds within a pass, and for its own team only', () => {
    const jobs = [job('a1'), job('a2'), job('b1', { teamId: 'other' })];
    const { placements, waiting } = plan(snapshot(jobs, [worker('v'), worker('w'), worker('x')], quota({ runningJobs: 1 })));
    expect(placements.map(({ jobId }) => jobId).sort()).toEqual(['a1', 'b1']);
    expect(waiting.get('a2')?.code).toBe('quota');
  });

  test('what jobs like it were measured to take counts', () => {
    expect(waitingOf(job('j', { memoryBytesEstimate: 5 * GIBIBYTE, memoryCorrection: 1.6 }), [worker('w')])?.text).toMatch(/^needs 8.0 GiB of memory/);
  });
});

describe('memory that is on its way back', () => {
  const small = job('small', { memoryBytesEstimate: GIBIBYTE, queuedAtMs: 1, secondsEstimate: 3600 });
  const large = job('large', { memoryBytesEstimate: 6 * GIBIBYTE });
  const returning = worker('w', { memoryBytesFree: 2 * GIBIBYTE, idleSinceMs: NOW_MS - 10_000 });

  test('a worker that has just ended a job is held for one that needs it whole, and the pass is made again', () => {
    const { placements, lookAgainAtMs } = plan(snapshot([large, small], [returning]));
    expect(placements).toEqual([]);
    expect(lookAgainAtMs).toBe(NOW_MS + 20_000);
  });

  test('what will be gone by then may use it, and so may everybody once the memory is not coming back', () => {
    expect(plan(snapshot([large, { ...small, secondsEstimate: 20 }], [returning])).placements).toMatchObject([{ jobId: 'small' }]);
    expect(plan(snapshot([large, small], [{ ...returning, idleSinceMs: NOW_MS - 30_000 }])).placements).toMatchObject([{ jobId: 'small' }]);
  });
});

describe('place and start', () => {
  const hour = 3600;

  test('places are those of the order between teams; each start is the end of what goes before it', () => {
    const jobs = ['a1', 'a2', 'b1'].map((id) => job(id, { teamId: id[0] as string, secondsEstimate: hour, queuedAtMs: id === 'b1' ? 5 : 0 }));
    const { waiting } = plan(snapshot(jobs, [busyWorker('w')], { running: [running('r', 'w', { teamId: 'c', estimatedFinishMs: NOW_MS + 60_000 })] }));
    const starts = [...waiting].map(([id, { position, estimatedStartMs }]) => [id, position, ((estimatedStartMs ?? 0) - NOW_MS) / 1000]);
    expect(starts).toEqual([['a1', 1, 60], ['b1', 2, 60 + hour], ['a2', 3, 60 + 2 * hour]]);
  });

  test('several workers, each with what fits on it', () => {
    const jobs = [job('large', { memoryBytesEstimate: 7 * GIBIBYTE, secondsEstimate: hour }), job('small', { queuedAtMs: 1, secondsEstimate: hour })];
    const workers = [busyWorker('small', { memoryBytesTotal: 2 * GIBIBYTE }), busyWorker('large')];
    const live = [running('r1', 'small', { estimatedFinishMs: NOW_MS + 500_000 }), running('r2', 'large', { assignedAtMs: NOW_MS - 100_000, secondsEstimate: 1100 })];
    const { waiting } = plan(snapshot(jobs, workers, { running: live }));
    expect([...waiting].map(([id, { estimatedStartMs }]) => [id, estimatedStartMs])).toEqual([['large', NOW_MS + 1_000_000], ['small', NOW_MS + 500_000]]);
  });

  test('nothing is said where an estimate is missing, and what cannot run takes nobody its place in time', () => {
    const live = [running('r', 'w', { estimatedFinishMs: NOW_MS + 1000 })];
    const jobs = [job('never', { memoryBytesEstimate: 99 * GIBIBYTE, secondsEstimate: 1 }), job('unknown', { queuedAtMs: 1 }), job('after', { queuedAtMs: 2, secondsEstimate: 1 })];
    const { waiting } = plan(snapshot(jobs, [busyWorker('w')], { running: live }));
    expect([...waiting.values()].map(({ position, estimatedStartMs }) => [position, estimatedStartMs])).toEqual([[1, null], [2, NOW_MS + 1000], [3, null]]);
    expect(waitingOf(job('j'), [busyWorker('w')], { running: [running('r', 'w', { secondsEstimate: 10 })] })?.estimatedStartMs).toBeNull();
  });

  test('the smallest from any place on, against looking at all', () => {
    const value = fc.oneof(fc.nat(9), fc.constant(Infinity));
    fc.assert(
      fc.property(fc.array(value, { minLength: 1, maxLength: 20 }), fc.array(fc.tuple(fc.nat(19), value), { maxLength: 10 }), (values, changes) => {
        const minima = new SuffixMinima(Float64Array.from(values));
        for (const [at, changed] of changes) {
          if (at >= values.length) continue;
          values[at] = changed;
          minima.set(at, changed);
        }
        for (let from = 0; from <= values.length; from++) {
          const rest = values.slice(from);
          const smallest = Math.min(Infinity, ...rest);
          expect(minima.smallestFrom(from)).toBe(smallest === Infinity ? -1 : from + rest.indexOf(smallest));
        }
      }),
    );
  });
});

test('a measured peak raises what is held to be needed at once and lowers it slowly, within bounds', () => {
  const model = { fixedBytes: 100, rowBytes: 10 };
  expect(correctedRatio(null, { peakBytes: 180, rows: 2, model })).toBe(1.5);
  expect(correctedRatio(1.2, { peakBytes: 180, rows: 2, model })).toBe(1.5);
  expect(correctedRatio(2, { peakBytes: 180, rows: 2, model })).toBeCloseTo(1.9, 10);
  expect([correctedRatio(null, { peakBytes: 1, rows: 1, model }), correctedRatio(null, { peakBytes: 1e9, rows: 1, model })]).toEqual([1, 4]);
});
