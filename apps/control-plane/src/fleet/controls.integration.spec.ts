/** Pause, drain and cordon with real worker processes and a fake engine that only counts; method as in `fleet.integration.spec.ts`. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { EmbeddedPostgres } from '@tunefleet/postgres-embedded';
import type { WorkerRecord } from '@tunefleet/ports';
import { bundleWorker, FleetHarness, removeBundles, until } from './testing/fleet-harness';
import { startTestPostgres } from './testing/test-record';

const TEST_MS = 60_000;
const GRACE_MS = 30_000;

let postgresDir: string;
let postgres: EmbeddedPostgres;
let fleet: FleetHarness;

beforeAll(async () => {
  await bundleWorker();
  postgresDir = await mkdtemp(join(tmpdir(), 'controls-postgres-'));
  postgres = await startTestPostgres(postgresDir);
}, 120_000);
afterAll(async () => {
  await postgres.stop();
  await rm(postgresDir, { recursive: true, force: true });
  await removeBundles();
}, 60_000);
beforeEach(async () => {
  fleet = await FleetHarness.open(postgres.url);
}, 60_000);
afterEach(async () => {
  const { records, teamId } = fleet.record;
  // The record is shared: what waits here would be taken by the next test's workers.
  for (const { id } of (await records.listJobs(teamId, { limit: 100 })).items) await records.cancelJob(teamId, id).catch(() => null);
  await fleet.close();
}, 60_000);

const pause = (job: string, graceMs = GRACE_MS) => fleet.record.records.pauseJob(fleet.record.teamId, job, graceMs);
const resume = (job: string) => fleet.record.records.resumeJob(fleet.record.teamId, job);

async function history(job: string): Promise<unknown[]> {
  return (await fleet.attempts(job)).map(({ outcome, stopReason, step }) => [outcome, stopReason, step]);
}

async function expectEachStepOnce(job: string, steps: number): Promise<void> {
  expect(await fleet.record.losses(job)).toEqual(Array.from({ length: steps }, (_, i) => ({ name: 'loss', step: i + 1, value: 1 / (i + 1) })));
}

/** As it is online now: earlier tests had workers of that name. */
async function workerNamed(name: string): Promise<WorkerRecord> {
  let found: WorkerRecord | undefined;
  await until(`worker ${name}`, async () => {
    found = (await fleet.record.records.listWorkers()).find((worker) => worker.name === name && worker.status === 'online' && worker.sessionId !== null);
    return found !== undefined;
  });
  return found as WorkerRecord;
}

test(
  'a paused job writes a checkpoint and frees its worker for another; resumed, it goes on from there and repeats nothing',
  async () => {
    fleet.startWorker('one');
    const job = await fleet.submit({ steps: 30, holdAt: 20, gate: fleet.gate('mid') });
    await fleet.untilStep(job, 19);
    expect(await pause(job)).toMatchObject({ status: 'running', stopReason: 'paused' });
    await fleet.untilStatus(job, 'paused');
    expect(await history(job)).toEqual([['stopped', 'paused', 19]]);
    expect((await fleet.record.fleet.latestCheckpoint(job))?.step).toBe(19);
    const other = await fleet.submit({ steps: 3 });
    await fleet.untilStatus(other, 'succeeded');
    expect((await fleet.record.fleet.getJob(job))?.status).toBe('paused');
    await fleet.openGate('mid');
    await resume(job);
    await fleet.untilStatus(job, 'succeeded');
    expect(await history(job)).toEqual([
      ['stopped', 'paused', 19],
      ['succeeded', null, 30],
    ]);
    await expectEachStepOnce(job, 30);
  },
  TEST_MS,
);

test(
  'an engine that does not write its checkpoint in time is killed; the job is paused all the same, at its last checkpoint',
  async () => {
    fleet.startWorker('one');
    const job = await fleet.submit({ steps: 30, checkpointEvery: 10, holdAt: 15, gate: fleet.gate('never'), ignoreStop: true });
    await fleet.untilStep(job, 14);
    await pause(job, 300);
    await fleet.untilStatus(job, 'paused');
    expect((await fleet.record.fleet.latestCheckpoint(job))?.step).toBe(10);
    expect(await fleet.record.fleet.getJob(job)).toMatchObject({ infraFailures: 0, error: null });
  },
  TEST_MS,
);

test(
  'a cancel goes over a pause that is under way',
  async () => {
    fleet.startWorker('one');
    const job = await fleet.submit({ steps: 30, holdAt: 5, gate: fleet.gate('never'), ignoreStop: true });
    await fleet.untilStep(job, 4);
    await pause(job);
    await until('the worker to be told', async () => (await fleet.attempts(job))[0]?.stopReason === 'paused');
    await fleet.record.cancel(job);
    const next = await fleet.submit({ steps: 3 });
    await fleet.untilStatus(next, 'succeeded');
    expect(await history(job)).toEqual([['stopped', 'paused', 4]]);
  },
  TEST_MS,
);

test(
  'a drain moves the job to another worker and keeps the drained one empty until it is uncordoned',
  async () => {
    fleet.startWorker('one', { labels: 'zone=a,gpu=none' });
    const job = await fleet.submit({ steps: 30, holdAt: 20, gate: fleet.gate('mid') });
    await fleet.untilStep(job, 19);
    const one = await workerNamed('one');
    expect(one.labels).toEqual({ zone: 'a', gpu: 'none' });
    fleet.startWorker('two');
    const two = await workerNamed('two');
    await fleet.record.records.drainWorker(one.id, { mode: 'move', graceMs: GRACE_MS });
    await until('the job to be handed back', async () => (await fleet.attempts(job))[0]?.outcome === 'stopped');
    await fleet.openGate('mid');
    await fleet.untilStatus(job, 'succeeded');
    expect(await history(job)).toEqual([
      ['stopped', 'drained', 19],
      ['succeeded', null, 30],
    ]);
    expect((await fleet.attempts(job)).map(({ workerId }) => workerId)).toEqual([one.id, two.id]);
    await expectEachStepOnce(job, 30);
    const next = await fleet.submit({ steps: 2 });
    await fleet.untilStatus(next, 'succeeded');
    expect((await fleet.attempts(next))[0]?.workerId).toBe(two.id);

    await fleet.record.records.setWorkerCordoned(two.id, true);
    await fleet.record.records.setWorkerCordoned(one.id, false);
    const last = await fleet.submit({ steps: 2 });
    await fleet.untilStatus(last, 'succeeded');
    expect((await fleet.attempts(last))[0]?.workerId).toBe(one.id);
  },
  TEST_MS,
);

test(
  'a drain that waits lets the job end, but moves it when its time is over',
  async () => {
    fleet.startWorker('one');
    const job = await fleet.submit({ steps: 30, holdAt: 20, gate: fleet.gate('mid') });
    await fleet.untilStep(job, 19);
    const { id } = await workerNamed('one');
    await fleet.record.records.drainWorker(id, { mode: 'wait', deadlineMs: 400, graceMs: GRACE_MS });
    await fleet.untilStatus(job, 'queued');
    expect(fleet.repairs()['drain_due']).toBe(1);
    expect(await history(job)).toEqual([['stopped', 'drained', 19]]);
  },
  TEST_MS,
);

test(
  'a worker on which jobs fail one after the other is cordoned, with the reason',
  async () => {
    fleet.startWorker('one');
    const jobs = [await fleet.submit({ steps: 10, crashAt: 2 }), await fleet.submit({ steps: 10, crashAt: 2 })];
    const { id } = await workerNamed('one');
    const worker = async () => (await fleet.record.records.listWorkers()).find((each) => each.id === id);
    await until('the cordon', async () => (await worker())?.cordoned === true);
    expect((await worker())?.cordonReason).toMatch(/^automatic: \d infrastructure failures of 2 jobs within 60 min, the last one engine_crashed$/);
    for (const job of jobs) expect((await fleet.record.fleet.getJob(job))?.status).toBe('queued');
  },
  TEST_MS,
);

test(
  'a lack of memory is tried once more with half the examples per pass; the batch stays',
  async () => {
    fleet.startWorker('one');
    const job = await fleet.submit({ steps: 5, failWith: 'resource' }, { batchSize: 16, microBatchSize: 4 });
    await fleet.untilStatus(job, 'failed');
    expect((await fleet.record.fleet.getJob(job))?.workerSpec).toMatchObject({ batchSize: 16, microBatchSize: 2 });
    expect((await fleet.record.fleet.getJob(job))?.error).toMatchObject({ class: 'resource', code: 'fake_failure' });
    expect(await history(job)).toHaveLength(2);
  },
  TEST_MS,
);

test(
  'a job that runs after another one starts when that has succeeded',
  async () => {
    fleet.startWorker('one');
    fleet.startWorker('two');
    const first = await fleet.submit({ steps: 10, holdAt: 5, gate: fleet.gate('first') });
    const second = await fleet.submit({ steps: 3 }, {}, [first]);
    await fleet.untilStep(first, 4);
    await until('the reason', async () => (await fleet.record.fleet.getJob(second))?.waitingReason === `waiting for ${first} (running) to succeed`);
    expect(await fleet.attempts(second)).toEqual([]);
    await fleet.openGate('first');
    await fleet.untilStatus(second, 'succeeded');
    expect((await fleet.attempts(second))[0]?.assignedAt.getTime()).toBeGreaterThanOrEqual((await fleet.record.fleet.getJob(first))?.finishedAt?.getTime() ?? Infinity);
  },
  TEST_MS,
);
