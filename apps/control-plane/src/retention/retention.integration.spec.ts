/**
 * Retention on a real PostgreSQL and real files. Method: a job that runs and one that has ended, each with files, uploads, checkpoints, events
 * and metrics; every rule is applied at the age of nothing, so that all that may ever go goes; then everything that somebody needs must still be there.
 */
import { mkdtemp, rm, utimes } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openBlobsFs } from '@tunefleet/blobs-fs';
import { RETENTION_KINDS, type ArtifactRef, type RetentionKind } from '@tunefleet/contracts';
import type { RetentionRule } from '@tunefleet/domain-jobs';
import { silentLogger, systemClock } from '@tunefleet/foundation';
import type { AttemptKey, WorkerEvent } from '@tunefleet/ports';
import { StoreSteps } from '@tunefleet/ports/conformance';
import { migrateDatabase, openStore, type Store } from '@tunefleet/store-prisma';
import { createDatabase, useDatabase, until } from '@tunefleet/testing';
import { DailyRetention } from './daily-retention';
import { Retention } from './retention';

const serverUrl = useDatabase();
let template: string;
let folder: string;
let store: Store;
let steps: StoreSteps;
let blobs: Awaited<ReturnType<typeof openBlobsFs>>;
let retention: Retention;

beforeAll(async () => {
  template = await createDatabase(serverUrl());
  await migrateDatabase(template);
}, 60_000);
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'retention-'));
  store = openStore({ databaseUrl: await createDatabase(serverUrl(), template), logger: silentLogger });
  steps = await StoreSteps.of(store);
  blobs = await openBlobsFs(folder);
  retention = new Retention({ store: store.retention, blobs, clock: systemClock, logger: silentLogger });
}, 60_000);
afterEach(async () => {
  await store.close();
  await rm(folder, { recursive: true, force: true });
});

const never = (): boolean => false;
const now = (kind: RetentionKind, keep = 0): RetentionRule => ({ kind, olderThanMs: 0, keep });
const everything: readonly RetentionRule[] = RETENTION_KINDS.map((kind) => now(kind, kind === 'checkpoints' ? 1 : 0));

/** Stored long ago. */
async function blob(text: string): Promise<ArtifactRef> {
  const name = text.replaceAll(' ', '-');
  const { sha256, bytes } = await blobs.put(
    (async function* () {
      yield Buffer.from(name);
    })(),
    { maxBytes: 1_000 },
  );
  const longAgo = new Date(Date.now() - 86_400_000);
  await utimes(join(folder, sha256.slice(0, 2), sha256.slice(2, 4), sha256), longAgo, longAgo);
  return { name, sha256, bytes };
}

async function file(name: string): Promise<{ id: string; artifact: ArtifactRef }> {
  const artifact = await blob(name);
  const { id } = await store.records.createFile({ teamId: steps.teamId, filename: name, purpose: 'fine-tune', bytes: artifact.bytes, sha256: artifact.sha256, expiresAt: null });
  return { id, artifact };
}

const isThere = async ({ sha256 }: ArtifactRef): Promise<boolean> => (await blobs.stat(sha256)) !== null;

/** Two checkpoints with a blob each, points and events; an upload that is in none of them. */
async function history(key: AttemptKey, workerId: string, name: string): Promise<{ checkpoints: ArtifactRef[]; sent: ArtifactRef }> {
  const checkpoints = [await blob(`${name} checkpoint 1`), await blob(`${name} checkpoint 2`)];
  const sent = await blob(`${name} upload`);
  await store.access.noteUpload(workerId, key, sent);
  const events = checkpoints.flatMap((artifact, index): WorkerEvent[] => [
    { seq: 2 * index + 1, type: 'metrics', step: index + 1, values: { train_loss: 1 } },
    { seq: 2 * index + 2, type: 'checkpoint', step: index + 1, artifacts: [artifact], metrics: {} },
  ]);
  await store.fleet.appendEvents(key, events);
  return { checkpoints, sent };
}

async function running(workerId: string, workerSpec = {}): Promise<{ jobId: string; key: AttemptKey }> {
  const session = await steps.worker(workerId);
  const jobId = await steps.queued({}, workerSpec);
  await steps.credit(workerId, session);
  return { jobId, key: await steps.running(jobId, workerId) };
}

async function published(name: string): Promise<{ jobId: string; adapter: ArtifactRef; checkpoints: ArtifactRef[]; sent: ArtifactRef }> {
  const { jobId, key } = await running(`worker-${name}`);
  const { checkpoints, sent } = await history(key, `worker-${name}`, name);
  const adapter = await blob(`${name} adapter`);
  await store.access.noteUpload(`worker-${name}`, key, adapter);
  await store.fleet.complete(key, { result: {}, artifacts: [adapter], adapter: { name: `ft:${name}`, baseModel: 'base', baseRevision: 'r1', tunerKind: 'lora' }, resultFiles: [], messages: [] });
  return { jobId, adapter, checkpoints, sent };
}

/** What of a job is still on record. */
async function rest(jobId: string): Promise<Record<string, number>> {
  const { records } = store;
  const [events, checkpoints, metrics, attempts] = await Promise.all([
    records.listEvents(jobId, { limit: 100 }),
    records.listCheckpoints(jobId, { limit: 100 }),
    records.listMetrics(jobId, { limit: 100 }),
    records.listAttempts(jobId),
  ]);
  return { events: events.items.length, checkpoints: checkpoints.items.length, metrics: metrics.length, attempts: attempts.length };
}

test('a live job, a data set in use and a published adapter lose nothing; what has ended goes but for its last checkpoint', async () => {
  const dataset = await file('data of the live job');
  const unusedFile = await file('uploaded, used by nobody yet');
  const live = await running('w-live', { trainingFile: dataset.artifact, startAdapter: [await blob('start adapter of the live job')] });
  const ofLive = await history(live.key, 'w-live', 'live');
  const done = await published('done');
  const before = await rest(live.jobId);

  const deleted = await file('deleted');
  await store.records.deleteFile(steps.teamId, deleted.id);
  const gone = await published('deleted adapter');
  await store.records.deleteAdapter(steps.teamId, 'ft:deleted adapter');
  const stray = await blob('of nobody');

  const dry = await retention.run(everything, { apply: false, isOver: never });
  expect([await isThere(stray), await rest(done.jobId)]).toEqual([true, { events: expect.any(Number), checkpoints: 2, metrics: 2, attempts: 1 }]);
  expect((await rest(done.jobId))['events']).toBeGreaterThan(2);

  const { freed, complete } = await retention.run(everything, { apply: true, isOver: never });
  expect(complete).toBe(true);
  // What is told beforehand is what goes; of blobs more, because the checkpoints that named them have gone meanwhile.
  const counted = (freedRows: typeof freed) => Object.fromEntries(freedRows.map(({ kind, rows }) => [kind, rows]));
  expect(counted(dry.freed)).toMatchObject({ checkpoints: 2, metrics: 4, uploads: 4, attempts: 0, artifacts: 5 });
  expect(counted(freed)).toMatchObject({ checkpoints: 2, metrics: 4, uploads: 4, attempts: 0, artifacts: 7 });
  expect(counted(freed)['events']).toBe(counted(dry.freed)['events']);
  for (const { kind, rows, bytes } of freed) expect([kind, bytes > 0]).toEqual([kind, rows > 0]);

  expect(await rest(live.jobId)).toEqual(before);
  const needed = [dataset.artifact, unusedFile.artifact, ...ofLive.checkpoints, ofLive.sent, done.adapter, done.checkpoints[1], gone.checkpoints[1]];
  expect(await Promise.all(needed.map((artifact) => isThere(artifact as ArtifactRef)))).toEqual(needed.map(() => true));
  const startAdapter = (await store.fleet.getJob(live.jobId))?.workerSpec?.['startAdapter'] as ArtifactRef[];
  expect(await isThere(startAdapter[0] as ArtifactRef)).toBe(true);

  expect(await rest(done.jobId)).toEqual({ events: 0, checkpoints: 1, metrics: 0, attempts: 1 });
  const removed = [deleted.artifact, gone.adapter, gone.sent, gone.checkpoints[0], done.sent, done.checkpoints[0], stray];
  expect(await Promise.all(removed.map((artifact) => isThere(artifact as ArtifactRef)))).toEqual(removed.map(() => false));

  // The live job goes on to its end as if nothing had been.
  await store.fleet.complete(live.key, { result: {}, artifacts: [ofLive.sent], resultFiles: [], messages: [] });
  expect(await steps.status(live.jobId)).toBe('succeeded');
}, 60_000);

test('attempts go after what hangs on them, messages only once they are no longer owed, and a number can be kept', async () => {
  const done = await published('done');
  const { items } = await store.records.listEvents(done.jobId, { limit: 100 });
  await retention.run([now('events', 2)], { apply: true, isOver: never });
  expect((await store.records.listEvents(done.jobId, { limit: 100 })).items.map(({ id }) => id)).toEqual(items.slice(0, 2).map(({ id }) => id));
  expect((await retention.run([now('attempts')], { apply: true, isOver: never })).freed).toMatchObject([{ rows: 0 }]);
  expect((await retention.run([now('checkpoints'), now('attempts')], { apply: true, isOver: never })).freed).toMatchObject([{ rows: 2 }, { rows: 1 }]);

  // The message of the first job is not owed any more since intake was done; that of the second is.
  await steps.create();
  expect((await retention.run([now('outbox')], { apply: true, isOver: never })).freed).toMatchObject([{ rows: 1 }]);
  expect(await store.outbox.relay(10, () => Promise.resolve())).toBe(1);
  expect((await retention.run([{ ...now('outbox'), olderThanMs: 60_000 }], { apply: true, isOver: never })).freed).toMatchObject([{ rows: 0 }]);
  expect((await retention.run([now('outbox')], { apply: true, isOver: never })).freed).toMatchObject([{ rows: 1 }]);
}, 60_000);

test('age counts: nothing that is younger goes, blobs neither', async () => {
  await published('done');
  // Beside what the job had sent and nothing came of.
  await blob('a day old');
  const hours = (count: number) => RETENTION_KINDS.map((kind): RetentionRule => ({ kind, olderThanMs: count * 3_600_000, keep: 0 }));
  expect((await retention.run(hours(48), { apply: true, isOver: never })).freed.map(({ rows }) => rows)).toEqual(RETENTION_KINDS.map(() => 0));
  const { freed } = await retention.run(hours(12), { apply: true, isOver: never });
  expect(freed.filter(({ rows }) => rows > 0).map(({ kind, rows }) => [kind, rows])).toEqual([['artifacts', 2]]);
}, 60_000);

test('thousands of rows go in batches, which can be cut off and gone on with', async () => {
  const { jobId, key } = await running('w');
  for (let batch = 0; batch < 5; batch++) {
    const events = Array.from({ length: 500 }, (_, i): WorkerEvent => ({ seq: batch * 500 + i + 1, type: 'metrics', step: batch * 500 + i + 1, values: { train_loss: 1 } }));
    await store.fleet.appendEvents(key, events);
  }
  await store.records.cancelJob(steps.teamId, jobId);
  let asked = 0;
  const first = await retention.run([now('metrics')], { apply: true, isOver: () => ++asked > 2 });
  expect(first).toMatchObject({ complete: false, freed: [{ rows: 2_000 }] });
  expect(await retention.run([now('metrics')], { apply: true, isOver: never })).toMatchObject({ complete: true, freed: [{ rows: 500 }] });
}, 60_000);

test('the daily run is made by one of two replicas, once, and removes by its rules only', async () => {
  await published('done');
  const stray = await blob('of nobody');
  const ran: string[] = [];
  const replicas = ['one', 'two'].map(
    (name) =>
      new DailyRetention({
        retention: { run: (...run) => (ran.push(name), retention.run(...run)) },
        store: store.retention,
        rules: [now('outbox')],
        logger: silentLogger,
        onRun: () => ran.push(`${name} looked`),
      }),
  );
  for (const replica of replicas) replica.start();
  await until('both to have looked', () => ran.filter((line) => line.endsWith('looked')).length === 2);
  await Promise.all(replicas.map((replica) => replica.stop()));
  expect(ran.filter((line) => !line.endsWith('looked'))).toHaveLength(1);
  expect(await retention.run([now('outbox')], { apply: false, isOver: never })).toMatchObject({ freed: [{ rows: 0 }] });
  expect(await isThere(stray)).toBe(true);
}, 60_000);
