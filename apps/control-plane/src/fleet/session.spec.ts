/** What goes over the wire when the record and a worker do not agree: real gRPC, the record in memory. */
import { afterStop } from '@tunefleet/domain-jobs';
import type { AttemptKey } from '@tunefleet/ports';
import { StoreSteps } from '@tunefleet/ports/conformance';
import { until } from '@tunefleet/testing';
import { FLEET_TOKEN, openMemoryFleet, type MemoryFleet } from './testing/memory-fleet';
import { RawWorker } from './testing/raw-worker';

let fleet: MemoryFleet;
let steps: StoreSteps;
let worker: RawWorker;

beforeEach(async () => {
  fleet = await openMemoryFleet();
  steps = await StoreSteps.of(fleet.store);
  worker = new RawWorker(fleet.address);
  await worker.join(FLEET_TOKEN);
  worker.open({ hello: { protocolVersion: 2, slots: 3 } });
  await worker.hear('welcome');
  worker.say({ $case: 'credit', value: { jobs: 3, modelsOnDisk: [], modelInMemory: '' } });
  await until('its credit', () => fleet.store.tables.workers.get(worker.id)?.credit === 3);
});
afterEach(async () => {
  worker.close();
  await fleet.close();
});

/** Placed and sent. */
async function sent(): Promise<AttemptKey> {
  const key = await steps.assigned(await steps.queued(), worker.id);
  await fleet.store.fleet.wake(`worker:${worker.id}`);
  await worker.hear('assign', ({ attempt }) => attempt?.attemptId === key.attemptId);
  return key;
}

const stopsOf = (attemptId: string): string[] => worker.heard.flatMap((message) => (message.$case === 'stop' && message.value.attempt?.attemptId === attemptId ? [message.value.reason] : []));

test('an assignment that was taken back for want of an answer is stopped before the next one is sent: the worker may have it all the same', async () => {
  const silent = await sent();
  expect(await fleet.store.fleet.revoke(silent, 'no answer')).toBe('applied');
  const next = await sent();
  const order = worker.heard.flatMap((message) => (message.$case === 'stop' || message.$case === 'assign' ? [`${message.$case} ${message.value.attempt?.attemptId ?? ''}`] : []));
  expect(order).toEqual([`assign ${silent.attemptId}`, `stop ${silent.attemptId}`, `assign ${next.attemptId}`]);
  expect(stopsOf(silent.attemptId)).toEqual(['stale']);
});

test('one that was answered is not', async () => {
  const accepted = await sent();
  worker.say({ $case: 'assignAck', value: { attempt: accepted, accepted: true, reason: '' } });
  await worker.hear('lease', ({ attempt }) => attempt?.attemptId === accepted.attemptId);
  await fleet.store.fleet.endAttempt(accepted, { outcome: 'stopped', failure: null, after: afterStop });
  await sent();
  expect(stopsOf(accepted.attemptId)).toEqual([]);
});

test('one that was asked to pause before its answer came is asked just that', async () => {
  const pausing = await sent();
  await fleet.store.records.pauseJob(steps.teamId, pausing.jobId, 60_000);
  await fleet.store.fleet.wake(`worker:${worker.id}`);
  await worker.hear('stop');
  expect(stopsOf(pausing.attemptId)).toEqual(['paused']);
});
