/**
 * The fleet side of the control plane with real worker processes: real gRPC, real record, a fake engine that only counts
 * (its loss at step n is 1/n, so a repeated step has the same value). Method: hold the engine at a step through a gate file, do harm,
 * open the gate, and wait for the record to say that the job ended once and that each step's metric is there.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sleep } from '@tunefleet/foundation';
import type { EmbeddedPostgres } from '@tunefleet/postgres-embedded';
import { bundleWorker, FleetHarness, isProcessAlive, removeBundles, until } from './testing/fleet-harness';
import { startTestPostgres } from './testing/test-record';

let postgresDir: string;
let postgres: EmbeddedPostgres;
let fleet: FleetHarness;

beforeAll(async () => {
  await bundleWorker();
  postgresDir = await mkdtemp(join(tmpdir(), 'fleet-postgres-'));
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
afterEach(() => fleet.close(), 60_000);

const TEST_MS = 60_000;

async function expectEachStepOnce(jobId: string, steps: number): Promise<void> {
  const expected = Array.from({ length: steps }, (_, i) => ({ name: 'loss', step: i + 1, value: 1 / (i + 1) }));
  expect(await fleet.record.losses(jobId)).toEqual(expected);
}

async function outcomes(jobId: string): Promise<unknown[]> {
  return (await fleet.attempts(jobId)).map((attempt) => attempt.outcome);
}

test(
  'a job runs to its end: metrics, checkpoints, result',
  async () => {
    fleet.startWorker('one');
    const job = await fleet.submit({ steps: 20, checkpointEvery: 5 });
    await fleet.untilStatus(job, 'succeeded');
    expect(await outcomes(job)).toEqual(['succeeded']);
    await expectEachStepOnce(job, 20);
    expect((await fleet.record.fleet.latestCheckpoint(job))?.step).toBe(20);
    expect((await fleet.record.fleet.getJob(job))?.result).toMatchObject({ steps: 20 });
  },
  TEST_MS,
);

test(
  'input artifacts reach the engine; the engine stays warm for the next job',
  async () => {
    fleet.startWorker('one');
    const bytes = Buffer.alloc(300_000, 'training data ');
    const stored = await fleet.record.blobs.put(chunks(bytes), { maxBytes: bytes.length });
    const trainingFile = { name: 'train.jsonl', ...stored };
    const first = await fleet.submit({ steps: 2 }, { trainingFile });
    const second = await fleet.submit({ steps: 2 }, { trainingFile });
    await fleet.untilStatus(first, 'succeeded');
    await fleet.untilStatus(second, 'succeeded');
    expect(await outcomes(first)).toEqual(['succeeded']);
    expect(await outcomes(second)).toEqual(['succeeded']);
  },
  TEST_MS,
);

test(
  'streams cut again and again during a run: same attempt, every metric once',
  async () => {
    fleet.startWorker('one');
    const job = await fleet.submit({ steps: 300, checkpointEvery: 50, holdAt: 290, gate: fleet.gate('end') });
    for (const step of [20, 60, 110, 170, 240]) {
      await fleet.untilStep(job, step);
      fleet.proxy.cut();
    }
    await fleet.openGate('end');
    await fleet.untilStatus(job, 'succeeded');
    expect(await outcomes(job)).toEqual(['succeeded']);
    await expectEachStepOnce(job, 300);
  },
  TEST_MS,
);

test(
  'the control plane is killed and started again during a run: the attempt goes on undisturbed',
  async () => {
    fleet.startWorker('one');
    const job = await fleet.submit({ steps: 40, checkpointEvery: 10, holdAt: 25, gate: fleet.gate('mid') });
    await fleet.untilStep(job, 24);
    await fleet.killControlPlane();
    await fleet.openGate('mid');
    await fleet.startControlPlane();
    await fleet.untilStatus(job, 'succeeded');
    expect(await outcomes(job)).toEqual(['succeeded']);
    await expectEachStepOnce(job, 40);
  },
  TEST_MS,
);

test(
  'a cancelled job stops on the worker, which then takes the next one',
  async () => {
    const worker = fleet.startWorker('one');
    const job = await fleet.submit({ steps: 1_000, holdAt: 5, gate: fleet.gate('never') });
    await fleet.untilStep(job, 4);
    await fleet.record.cancel(job);
    const next = await fleet.submit({ steps: 3 });
    await fleet.untilStatus(next, 'succeeded');
    await fleet.untilStatus(job, 'cancelled');
    expect(await outcomes(job)).toEqual(['stopped']);
    expect(worker.process.exitCode).toBeNull();
  },
  TEST_MS,
);

test(
  'an engine that does not react to a cancel is killed and replaced',
  async () => {
    fleet.startWorker('one');
    const job = await fleet.submit({ steps: 1_000, holdAt: 5, gate: fleet.gate('never'), ignoreStop: true });
    await fleet.untilStep(job, 4);
    await fleet.record.cancel(job);
    const next = await fleet.submit({ steps: 3 });
    await fleet.untilStatus(next, 'succeeded');
    expect(await outcomes(job)).toEqual(['stopped']);
  },
  TEST_MS,
);

test(
  'an engine crash: the next attempt goes on from the last checkpoint and repeats only what came after it',
  async () => {
    fleet.startWorker('one');
    const job = await fleet.submit({ steps: 30, checkpointEvery: 10, crashAt: 25 });
    await fleet.untilStatus(job, 'succeeded');
    const [first, second] = await fleet.attempts(job);
    expect(first).toMatchObject({ outcome: 'failed', failure: { class: 'infrastructure', code: 'engine_crashed' } });
    expect(first?.failure?.logTail).toContain('fake engine: about to crash');
    expect(second?.outcome).toBe('succeeded');
    expect(second?.resumeCheckpointId).not.toBeNull();
    await expectEachStepOnce(job, 30);
    expect((await fleet.record.fleet.getJob(job))?.infraFailures).toBe(1);
  },
  TEST_MS,
);

test(
  'the agent is killed and started again: its engine dies with it, its attempt ends at once, the job goes on from the checkpoint',
  async () => {
    const worker = fleet.startWorker('one');
    const job = await fleet.submit({ steps: 30, checkpointEvery: 10, holdAt: 25, gate: fleet.gate('mid') });
    await fleet.untilStep(job, 24);
    const engine = await enginePid(worker.process.pid);
    await fleet.killAndRestart(worker);
    await until('the engine to be gone', () => !isProcessAlive(engine));
    await fleet.openGate('mid');
    await fleet.untilStatus(job, 'succeeded');
    expect(await outcomes(job)).toEqual(['lost', 'succeeded']);
    await expectEachStepOnce(job, 30);
    expect(fleet.repairs()['lease_expired']).toBe(0);
  },
  TEST_MS,
);

test(
  'a worker out of reach beyond its lease stops by itself; another one goes on; its late words change nothing',
  async () => {
    await fleet.shortenLeases(2_500);
    const cutOff = fleet.startWorker('one');
    const job = await fleet.submit({ steps: 30, checkpointEvery: 10, holdAt: 25, gate: fleet.gate('mid') });
    await fleet.untilStep(job, 24);
    fleet.proxy.refuse();
    await until('the lease to expire', () => (fleet.repairs()['lease_expired'] ?? 0) > 0);
    await fleet.openGate('mid');
    fleet.proxy.allow();
    await fleet.untilStatus(job, 'succeeded');
    const all = await outcomes(job);
    expect(all.at(0)).toBe('lost');
    expect(all.at(-1)).toBe('succeeded');
    await expectEachStepOnce(job, 30);
    const next = await fleet.submit({ steps: 3 });
    await fleet.untilStatus(next, 'succeeded');
    expect(cutOff.process.exitCode).toBeNull();
  },
  TEST_MS,
);

test(
  'an attempt taken from a running worker: it is told that its epoch is over and drops it',
  async () => {
    fleet.startWorker('one');
    const job = await fleet.submit({ steps: 30, checkpointEvery: 10, holdAt: 25, gate: fleet.gate('mid') });
    await fleet.untilStep(job, 24);
    const [attempt] = await fleet.attempts(job);
    if (attempt === undefined) throw new Error('no attempt');
    await fleet.record.fleet.endAttempt(
      { jobId: job, attemptId: attempt.id, epoch: attempt.epoch },
      { outcome: 'failed', failure: null, after: { then: 'retry', counts: 'none', delayMs: 0 } },
    );
    await fleet.openGate('mid');
    await fleet.untilStatus(job, 'succeeded');
    expect(await outcomes(job)).toEqual(['failed', 'succeeded']);
    await expectEachStepOnce(job, 30);
  },
  TEST_MS,
);

test(
  'two workers run two jobs at the same time in folders of their own',
  async () => {
    fleet.startWorker('one');
    fleet.startWorker('two');
    const gate = fleet.gate('both');
    const jobs = [await fleet.submit({ steps: 10, holdAt: 5, gate }), await fleet.submit({ steps: 10, holdAt: 5, gate })];
    for (const job of jobs) await fleet.untilStep(job, 4);
    const workers = await Promise.all(jobs.map(async (job) => (await fleet.attempts(job))[0]?.workerId));
    expect(new Set(workers).size).toBe(2);
    await fleet.openGate('both');
    for (const job of jobs) {
      await fleet.untilStatus(job, 'succeeded');
      await expectEachStepOnce(job, 10);
    }
  },
  TEST_MS,
);

test(
  'an upload that is cut on the way is made again',
  async () => {
    fleet.startWorker('one');
    const job = await fleet.submit({ steps: 5, holdAt: 5, gate: fleet.gate('end'), resultBytes: 3_000_000 });
    await fleet.untilStep(job, 4);
    fleet.proxy.cutAfter(1_000_000);
    await fleet.openGate('end');
    await fleet.untilStatus(job, 'succeeded');
    expect(fleet.proxy.hasCut).toBe(true);
    expect(await outcomes(job)).toEqual(['succeeded']);
  },
  TEST_MS,
);

test(
  'on SIGTERM a worker writes a checkpoint, hands its job back and exits; another worker goes on from there',
  async () => {
    const leaving = fleet.startWorker('one');
    const job = await fleet.submit({ steps: 30, holdAt: 20, gate: fleet.gate('mid') });
    await fleet.untilStep(job, 19);
    leaving.process.kill('SIGTERM');
    expect(await leaving.exited).toBe(0);
    expect(await outcomes(job)).toEqual(['stopped']);
    expect((await fleet.record.fleet.latestCheckpoint(job))?.step).toBe(19);
    await fleet.openGate('mid');
    fleet.startWorker('two');
    await fleet.untilStatus(job, 'succeeded');
    expect((await fleet.record.fleet.getJob(job))?.infraFailures).toBe(0);
    await expectEachStepOnce(job, 30);
  },
  TEST_MS,
);

test.each(['user', 'resource'] as const)(
  'a %s failure ends the job after the tries it is worth',
  async (failWith) => {
    fleet.startWorker('one');
    const job = await fleet.submit({ steps: 5, failWith });
    await fleet.untilStatus(job, 'failed');
    expect(await outcomes(job)).toEqual(failWith === 'user' ? ['failed'] : ['failed', 'failed']);
    expect((await fleet.record.fleet.getJob(job))?.error).toMatchObject({ class: failWith, code: 'fake_failure' });
  },
  TEST_MS,
);

test(
  'a worker with a wrong token is refused and exits, saying so',
  async () => {
    const worker = fleet.startWorker('one', { token: 'not-the-token' });
    expect(await worker.exited).toBe(1);
  },
  TEST_MS,
);

test(
  'a worker whose parent goes away exits, and its engine with it',
  async () => {
    const worker = fleet.startWorker('one');
    await new Promise((resolve) => worker.process.once('message', resolve));
    const engine = await enginePid(worker.process.pid);
    worker.process.disconnect();
    expect(await worker.exited).toBe(2);
    await until('the engine to be gone', () => !isProcessAlive(engine));
  },
  TEST_MS,
);

async function enginePid(agentPid: number | undefined): Promise<number> {
  const children = (await readFile(`/proc/${agentPid}/task/${agentPid}/children`, 'utf8')).trim().split(' ').map(Number);
  const [engine] = children;
  if (engine === undefined || !(engine > 0)) throw new Error(`process ${agentPid} has no child`);
  return engine;
}

async function* chunks(bytes: Buffer): AsyncIterable<Uint8Array> {
  for (let start = 0; start < bytes.length; start += 65_536) {
    yield bytes.subarray(start, start + 65_536);
    await sleep(0);
  }
}
