/** What a control plane of this version answers to workers of other ones: real gRPC, the record in memory. */
import { OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION } from './settings';
import { FLEET_TOKEN, openMemoryFleet, type MemoryFleet } from './testing/memory-fleet';
import { RawWorker } from './testing/raw-worker';

let fleet: MemoryFleet;
let worker: RawWorker;

beforeEach(async () => {
  fleet = await openMemoryFleet();
  worker = new RawWorker(fleet.address);
});
afterEach(async () => {
  worker.close();
  await fleet.close();
});

test('a worker of before credentials shows the token of the fleet: it is told to be updated, and nothing of it is recorded', async () => {
  worker.open({ shown: FLEET_TOKEN });
  expect(await worker.ended()).toEqual({ status: 'UNAUTHENTICATED', details: expect.stringContaining('update the worker') });
  expect(fleet.store.tables.workers.size).toBe(0);
});

test('a worker that speaks an older version than is still served is told to be updated, and nothing of it is recorded', async () => {
  expect(await worker.join(FLEET_TOKEN)).toMatchObject({ status: 'OK' });
  worker.open({ hello: { protocolVersion: 0 } });
  expect(await worker.ended()).toMatchObject({ status: 'INVALID_ARGUMENT', details: expect.stringMatching(/speaks protocol 0, .* serves 1 and newer: update the worker/) });
  expect(fleet.store.tables.workers.size).toBe(0);
});

test('the oldest version that is served is none that is not spoken yet', () => {
  expect(OLDEST_PROTOCOL_VERSION).toBeLessThanOrEqual(PROTOCOL_VERSION);
});

test('a worker that speaks a newer version is served in this one', async () => {
  expect(await worker.join(FLEET_TOKEN)).toMatchObject({ status: 'OK' });
  worker.open({ hello: { protocolVersion: 7 } });
  expect(await worker.hear('welcome')).toMatchObject({ protocolVersion: PROTOCOL_VERSION });
  expect(fleet.store.tables.workers.get(worker.id)).toMatchObject({ status: 'online' });
});

test('workers of two versions are served side by side', async () => {
  const other = new RawWorker(fleet.address);
  try {
    for (const [one, protocolVersion] of [[worker, 1], [other, 2]] as const) {
      await one.join(FLEET_TOKEN);
      one.open({ hello: { protocolVersion }, credit: true });
      await one.hear('welcome');
    }
    expect([...fleet.store.tables.workers.values()].map(({ status }) => status)).toEqual(['online', 'online']);
  } finally {
    other.close();
  }
});
