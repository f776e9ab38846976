/** What a control plane of this version answers to workers of other ones: real gRPC, the record in memory. */
import { silentLogger, systemClock } from '@tunefleet/foundation';
import type { BlobStore } from '@tunefleet/ports';
import { openStoreMemory, type MemoryStore } from '@tunefleet/testing/store-memory';
import { AttemptEndings } from './attempt-endings';
import { FleetServer } from './fleet-server';
import { OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION } from './settings';
import { RawWorker } from './testing/raw-worker';

const TOKEN = 'token-of-the-whole-fleet';

let store: MemoryStore;
let server: FleetServer;
let address: string;
let worker: RawWorker;

beforeEach(async () => {
  store = openStoreMemory();
  const blobs = { stat: async () => null } as unknown as BlobStore;
  const endings = new AttemptEndings({ fleet: store.fleet, records: store.records, blobs, resultCsv: () => '', logger: silentLogger });
  server = new FleetServer({ host: '127.0.0.1', port: 0, sharedToken: TOKEN }, { store: store.fleet, access: store.access, blobs, endings, clock: systemClock, logger: silentLogger });
  address = `127.0.0.1:${await server.start()}`;
  worker = new RawWorker(address);
});
afterEach(async () => {
  worker.close();
  await server.stop();
  await store.close();
});

test('a worker of before credentials shows the token of the fleet: it is told to be updated, and nothing of it is recorded', async () => {
  worker.open({ shown: TOKEN });
  expect(await worker.ended()).toEqual({ status: 'UNAUTHENTICATED', details: expect.stringContaining('update the worker') });
  expect(store.tables.workers.size).toBe(0);
});

test('a worker that speaks an older version than is still served is told to be updated, and nothing of it is recorded', async () => {
  expect(await worker.join(TOKEN)).toMatchObject({ status: 'OK' });
  worker.open({ hello: { protocolVersion: 0 } });
  expect(await worker.ended()).toMatchObject({ status: 'INVALID_ARGUMENT', details: expect.stringMatching(/speaks protocol 0, .* serves 1 and newer: update the worker/) });
  expect(store.tables.workers.size).toBe(0);
});

test('the oldest version that is served is none that is not spoken yet', () => {
  expect(OLDEST_PROTOCOL_VERSION).toBeLessThanOrEqual(PROTOCOL_VERSION);
});

test('a worker that speaks a newer version is served in this one', async () => {
  expect(await worker.join(TOKEN)).toMatchObject({ status: 'OK' });
  worker.open({ hello: { protocolVersion: 7 } });
  expect(await worker.hear('welcome')).toMatchObject({ protocolVersion: PROTOCOL_VERSION });
  expect(store.tables.workers.get(worker.id)).toMatchObject({ status: 'online' });
});

test('workers of two versions are served side by side', async () => {
  const other = new RawWorker(address);
  try {
    for (const [one, protocolVersion] of [[worker, 1], [other, 2]] as const) {
      await one.join(TOKEN);
      one.open({ hello: { protocolVersion }, credit: true });
      await one.hear('welcome');
    }
    expect([...store.tables.workers.values()].map(({ status }) => status)).toEqual(['online', 'online']);
  } finally {
    other.close();
  }
});
