import fc from 'fast-check';
import { plan } from './plan';
import type { QueuedJob, SchedulableWorker } from './snapshot';
import { MEMORY_SHARE } from './memory-fit';
import { GIBIBYTE, job, snapshot, worker } from './testing/builders';

/** "job>worker" in the order of the workers. */
const pairs = (jobs: readonly QueuedJob[], workers: readonly SchedulableWorker[]): string[] =>
  plan(snapshot(jobs, workers))
    .placements.map((placement) => `${placement.jobId}>${placement.workerId}`)
    .sort();

const reasonOf = (waiting: QueuedJob, workers: readonly SchedulableWorker[]): string | undefined => plan(snapshot([waiting], workers)).waiting.get(waiting.id)?.text;

test('a placement names the versions of job and worker that the snapshot saw', () => {
  const { placements, waiting } = plan(snapshot([job('j', { epoch: 3, resumeCheckpointId: 'ckpt' })], [worker('w')]));
  expect(placements).toEqual([{ jobId: 'j', jobEpoch: 3, workerId: 'w', workerBootId: 'boot-w', workerSessionId: 'session-w', workerSlots: 1, resumeCheckpointId: 'ckpt', besideJobIds: [] }]);
  expect(waiting.size).toBe(0);
});

test('higher priority first, then first in first out', () => {
  const jobs = [job('late', { queuedAtMs: 2 }), job('early', { queuedAtMs: 1 }), job('urgent', { queuedAtMs: 3, priority: 5 })];
  expect(pairs(jobs, [worker('w')])).toEqual(['urgent>w']);
  expect(pairs(jobs, [worker('v'), worker('w')]).map((pair) => pair.split('>')[0]).sort()).toEqual(['early', 'urgent']);
});

describe('which worker', () => {
  test.each<[string, Partial<QueuedJob>, readonly SchedulableWorker[]]>([
    ['with the model in memory before one that has it on disk', {}, [worker('a', { modelsOnDisk: ['base@r1'] }), worker('best', { modelInMemory: 'base@r1' })]],
    ['with the model on disk before one that has to fetch it', {}, [worker('a'), worker('best', { modelsOnDisk: ['base@r1'] })]],
    ['another revision is another model', {}, [worker('a', { modelInMemory: 'base@r2' }), worker('best', { modelsOnDisk: ['base@r1'] })]],
    ['rather one whose engine is empty than one that drops a model', {}, [worker('a', { modelInMemory: 'other@r1' }), worker('best')]],
    ['the one it ran on before, where its checkpoint lies', { lastWorkerId: 'best' }, [worker('a', { modelsOnDisk: ['base@r1'] }), worker('best', { modelsOnDisk: ['base@r1'] })]],
    ['not the one where it failed last', { failedWorkerIds: ['a'], lastWorkerId: 'a' }, [worker('a', { modelInMemory: 'base@r1' }), worker('best')]],
    ['where it failed before the last time is no matter', { failedWorkerIds: ['best', 'b'] }, [worker('b'), worker('best')]],
    ['the smallest that fits', {}, [worker('a', { memoryBytesTotal: 80 * GIBIBYTE }), worker('best')]],
  ])('%s', (_name, changes, workers) => {
    expect(pairs([job('j', changes)], workers)).toEqual(['j>best']);
  });

  test('one where it failed, rather than none', () => {
    expect(pairs([job('j', { failedWorkerIds: ['w', 'w', 'w'] })], [worker('w')])).toEqual(['j>w']);
  });

  test('not one where it failed twice while another could run it, even if it has to wait', () => {
    const twice = job('j', { failedWorkerIds: ['w', 'w'] });
    expect(reasonOf(twice, [worker('w'), worker('other', { busy: true, credit: 0 })])).toBe('waiting for a free worker: 1 worker fits and is busy');
    expect(pairs([twice], [worker('w'), worker('other', { busy: true, memoryBytesTotal: 1 })])).toEqual(['j>w']);
  });

  test('a job moves over for one that fits nowhere else, whatever it would prefer', () => {
    const small = job('small', { priority: 1, baseModel: 'small@r1' });
    const large = job('large', { memoryBytesEstimate: 20 * GIBIBYTE });
    const big = { memoryBytesTotal: 40 * GIBIBYTE, memoryBytesFree: 40 * GIBIBYTE, modelInMemory: 'small@r1' };
    expect(pairs([small], [worker('big', big), worker('little')])).toEqual(['small>big']);
    expect(pairs([small, large], [worker('big', big), worker('little')])).toEqual(['large>big', 'small>little']);
  });
});

describe('why a job waits', () => {
  test.each<[string, Partial<QueuedJob>, readonly SchedulableWorker[]]>([
    ['waiting for a worker: none is online', {}, []],
    ['waiting for a worker: none is online', {}, [worker('w', { online: false })]],
    ['waiting for a worker that runs fine-tune jobs: 1 worker is online and cannot', {}, [worker('w', { jobKinds: ['eval'] }), worker('off', { online: false })]],
    [
      'needs 9.1 GiB of memory, the largest worker has 3.6 GiB for a job: lower batch size or sequence length, or add a worker',
      { memoryBytesEstimate: 9.01 * GIBIBYTE },
      [worker('w', { memoryBytesTotal: 4 * GIBIBYTE }), worker('v', { memoryBytesTotal: 2 * GIBIBYTE }), worker('off', { online: false, memoryBytesTotal: 80 * GIBIBYTE })],
    ],
    [
      'needs 1.0 GiB of memory, the largest worker has 471 MiB free for a job: lower batch size or sequence length, or add a worker',
      {},
      [worker('w', { memoryBytesFree: 0.5 * GIBIBYTE }), worker('v', { memoryBytesFree: 0 })],
    ],
    ['waiting for a worker: 1 worker fits but is cordoned (w). "tunefleet workers" says why; "tunefleet workers uncordon w" lets it take jobs again', {}, [worker('w', { cordoned: true })]],
    ['waiting for a worker: 4 workers fit but are cordoned (a, b, c and 1 more). "tunefleet workers" says why; "tunefleet workers uncordon a" lets that one take jobs again', {}, ['a', 'b', 'c', 'd'].map((id) => worker(id, { cordoned: true }))],
    ['waiting for a worker: 2 workers fit but are cordoned (v, w). "tunefleet workers" says why; "tunefleet workers uncordon v" lets that one take jobs again', {}, [worker('w', { cordoned: true }), worker('v', { cordoned: true })]],
    ['waiting for a free worker: 1 worker fits and is busy', {}, [worker('w', { busy: true }), worker('v', { cordoned: true })]],
    ['waiting for a worker: 1 worker fits but is not ready for a job yet', {}, [worker('w', { credit: 0 })]],
    ['waiting after a failure, tried again from 1970-01-01T00:16:40.001Z on', { notBeforeMs: 1_000_001 }, [worker('w')]],
  ])('%s', (reason, changes, workers) => {
    expect(reasonOf(job('j', changes), workers)).toBe(reason);
  });

  test('behind others: the same sentence as once they run', () => {
    const { waiting } = plan(snapshot([job('first'), job('second', { queuedAtMs: 1 })], [worker('w'), worker('v', { busy: true, credit: 0 })]));
    expect([...waiting]).toEqual([['second', { code: 'workers_busy', text: 'waiting for a free worker: 2 workers fit and are busy', position: 1, estimatedStartMs: null }]]);
    expect(reasonOf(job('second'), [worker('w', { busy: true, credit: 0 }), worker('v', { busy: true, credit: 0 })])).toBe(waiting.get('second')?.text);
  });

  test('the wait after a failure ends at its time', () => {
    expect(plan(snapshot([job('j', { notBeforeMs: 1_000_001 })], [worker('w')]), 1_000_001).placements).toHaveLength(1);
  });

  test('memory that an idle engine holds counts as free', () => {
    expect(pairs([job('j')], [worker('w', { memoryBytesFree: 0, modelInMemory: 'other@r1' })])).toEqual(['j>w']);
  });
});

describe('properties', () => {
  const memory = fc.integer({ min: 0, max: 16 });
  const models = fc.constantFrom('a@1', 'b@1', 'c@1');
  const ids = fc.constantFrom('w0', 'w1', 'w2', 'w3', 'w4', 'w5');
  const anyJob = fc.record({
    kind: fc.constantFrom('fine-tune', 'eval'),
    priority: fc.integer({ min: -2, max: 2 }),
    queuedAtMs: fc.nat(5),
    notBeforeMs: fc.option(fc.integer({ min: 999_998, max: 1_000_002 })),
    baseModel: models,
    memoryBytesEstimate: memory,
    failedWorkerIds: fc.array(ids, { maxLength: 4 }),
    lastWorkerId: fc.option(ids),
  });
  const anyWorker = fc.record({
    online: mostly(true),
    cordoned: mostly(false),
    busy: mostly(false),
    credit: fc.nat(2),
    jobKinds: fc.subarray(['fine-tune', 'eval']),
    memoryBytesTotal: memory,
    memoryBytesFree: memory,
    modelsOnDisk: fc.subarray(['a@1', 'b@1', 'c@1']),
    modelInMemory: fc.option(models),
  });
  const anySnapshot = fc
    .tuple(fc.array(anyJob, { maxLength: 9 }), fc.array(anyWorker, { maxLength: 6 }))
    .map(([jobs, workers]) => snapshot(jobs.map((changes, index) => job(`j${index}`, changes)), workers.map((changes, index) => worker(`w${index}`, changes))));

  function mostly(value: boolean) {
    return fc.nat(3).map((n) => (n === 0 ? !value : value));
  }

  /** Written apart from the code under test. */
  function mayTake(taker: SchedulableWorker, wanted: QueuedJob): boolean {
    const room = taker.modelInMemory === null ? Math.min(taker.memoryBytesFree, taker.memoryBytesTotal) : taker.memoryBytesTotal;
    return (
      taker.online && !taker.cordoned && !taker.busy && taker.credit > 0 && taker.jobKinds.includes(wanted.kind) && wanted.memoryBytesEstimate <= room * MEMORY_SHARE && (wanted.notBeforeMs ?? 0) <= 1_000_000
    );
  }

  function excluded(taker: SchedulableWorker, wanted: QueuedJob, workers: readonly SchedulableWorker[]): boolean {
    const failures = (id: string) => wanted.failedWorkerIds.filter((failed) => failed === id).length;
    const could = (other: SchedulableWorker) => other.online && !other.cordoned && other.jobKinds.includes(wanted.kind) && wanted.memoryBytesEstimate <= other.memoryBytesTotal * MEMORY_SHARE;
    return failures(taker.id) >= 2 && workers.some((other) => could(other) && failures(other.id) < 2);
  }

  /** The most of `jobs` that can run at once, by trying everything. */
  function mostServed(jobs: readonly QueuedJob[], workers: readonly SchedulableWorker[], all: readonly SchedulableWorker[]): number {
    const [first, ...rest] = jobs;
    if (first === undefined) return 0;
    let most = mostServed(rest, workers, all);
    for (const taker of workers) {
      if (mayTake(taker, first) && !excluded(taker, first, all)) most = Math.max(most, 1 + mostServed(rest, workers.filter((other) => other !== taker), all));
    }
    return most;
  }

  test('every job is placed once or has a reason; every worker gets one at most; nothing goes where it may not', () => {
    fc.assert(
      fc.property(anySnapshot, (seen) => {
        const { placements, waiting } = plan(seen);
        expect(new Set(placements.map((placement) => placement.workerId)).size).toBe(placements.length);
        expect([...placements.map((placement) => placement.jobId), ...waiting.keys()].sort()).toEqual(seen.jobs.map(({ id }) => id).sort());
        for (const { jobId, workerId } of placements) {
          const [placed, taker] = [seen.jobs.find(({ id }) => id === jobId), seen.workers.find(({ id }) => id === workerId)];
          if (placed === undefined || taker === undefined) throw new Error('placed what is not there');
          expect([mayTake(taker, placed), excluded(taker, placed, seen.workers)]).toEqual([true, false]);
        }
        for (const { text } of waiting.values()) expect(text.length).toBeGreaterThan(10);
      }),
    );
  });

  test('a job waits only if no placing of those before it leaves room for it', () => {
    fc.assert(
      fc.property(anySnapshot, (seen) => {
        const { placements } = plan(seen);
        const placed = new Set(placements.map((placement) => placement.jobId));
        const ordered = [...seen.jobs].sort((a, b) => b.priority - a.priority || a.queuedAtMs - b.queuedAtMs || (a.id < b.id ? -1 : 1));
        const served: QueuedJob[] = [];
        for (const next of ordered) {
          const hasRoom = mostServed([...served, next], seen.workers, seen.workers) === served.length + 1;
          expect(placed.has(next.id)).toBe(hasRoom);
          if (hasRoom) served.push(next);
        }
      }),
      { numRuns: 60 },
    );
  });

  test('the order in which the snapshot lists jobs and workers changes nothing, and planning again gives the same', () => {
    fc.assert(
      fc.property(anySnapshot, (seen) => {
        const reversed = { ...seen, jobs: [...seen.jobs].reverse(), workers: [...seen.workers].reverse() };
        const sorted = ({ placements, waiting }: ReturnType<typeof plan>) => [[...placements].sort((a, b) => (a.jobId < b.jobId ? -1 : 1)), [...waiting].sort()];
        expect(sorted(plan(reversed))).toEqual(sorted(plan(seen)));
        expect(plan(seen)).toEqual(plan(seen));
      }),
    );
  });
});
