import { LOCALITY_WAIT_MAX_MS } from './model-locality';
import { plan } from './plan';
import type { QueuedJob, SchedulableWorker } from './snapshot';
import { busyWorker, job, NOW_MS, running, snapshot, worker } from './testing/builders';

/** Two seconds to load from a disk, eight more to fetch. */
const WEIGHT_BYTES = 400e6;
const wanted = (changes: Partial<QueuedJob> = {}) => job('j', { weightBytes: WEIGHT_BYTES, queuedAtMs: NOW_MS, ...changes });
const holder = busyWorker('holder', { modelInMemory: 'base@r1' });
const onDisk = worker('other', { modelsOnDisk: ['base@r1'] });
const ends = (inMs: number) => [running('r', 'holder', { estimatedFinishMs: NOW_MS + inMs })];
const planOf = (waiting: readonly QueuedJob[], workers: readonly SchedulableWorker[], endsInMs = 1000) => plan(snapshot(waiting, workers, { running: ends(endsInMs) }));

test('a job passes a free worker by for one that holds its model and will be free in time', () => {
  const { placements, waiting, lookAgainAtMs } = planOf([wanted()], [holder, onDisk]);
  expect(placements).toEqual([]);
  expect(waiting.get('j')).toMatchObject({ code: 'model_locality', text: 'waiting for worker holder, which holds base@r1 in memory, 4 s at most', estimatedStartMs: NOW_MS });
  expect(lookAgainAtMs).toBe(NOW_MS + 4000);
});

test('it waits for twice what loading takes, fetching included, and never for longer than a minute', () => {
  expect(planOf([wanted()], [holder, worker('empty')]).lookAgainAtMs).toBe(NOW_MS + 20_000);
  expect(planOf([wanted({ weightBytes: 1e12 })], [holder, onDisk]).lookAgainAtMs).toBe(NOW_MS + LOCALITY_WAIT_MAX_MS);
});

test.each<[string, QueuedJob, readonly SchedulableWorker[], number]>([
  ['its time is over', wanted({ localitySinceMs: NOW_MS - 4000 }), [holder, onDisk], 1000],
  ['the other one will not be free in time', wanted(), [holder, onDisk], 4001],
  ['the size of the model is not known', wanted({ weightBytes: null }), [holder, onDisk], 1000],
  ['the free one holds the model, too', wanted(), [holder, worker('other', { modelInMemory: 'base@r1' })], 1000],
  ['the other one holds another revision', wanted(), [busyWorker('holder', { modelInMemory: 'base@r2' }), onDisk], 1000],
  ['it failed there last', wanted({ failedWorkerIds: ['holder'] }), [holder, onDisk], 1000],
  ['the other one is cordoned', wanted(), [{ ...holder, cordoned: true }, onDisk], 1000],
])('not when %s', (_why, waiting, workers, endsInMs) => {
  expect(planOf([waiting], workers, endsInMs).placements).toMatchObject([{ workerId: 'other' }]);
});

test('only one waits for each; the next takes the free worker unless that is held as the first one\'s way out', () => {
  const second = { ...wanted({ queuedAtMs: NOW_MS + 1 }), id: 'k', secondsEstimate: 3600 };
  expect(planOf([wanted(), second], [holder, onDisk, worker('third')]).placements).toMatchObject([{ jobId: 'k', workerId: 'third' }]);
  expect(planOf([wanted(), second], [holder, onDisk]).placements).toEqual([]);
  // Gone before the first one's patience ends.
  expect(planOf([wanted(), { ...second, secondsEstimate: 4 }], [holder, onDisk]).placements).toMatchObject([{ jobId: 'k', workerId: 'other' }]);
});
