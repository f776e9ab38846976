/**
 * An engine that hangs: a real worker process whose engine process is stopped by a signal, so that it neither works nor answers, while the agent
 * goes on renewing its lease. The engine counts instead of training; its time to be silent is cut to seconds.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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
const SILENCE = { env: { TUNEFLEET_ENGINE_SILENCE_SECONDS: '6' } };

async function enginePid(jobId: string): Promise<number> {
  const { items } = await fleet.record.records.listEvents(jobId, { limit: 1000 });
  return Number(items.map(({ message }) => /fake engine (\d+) starts/.exec(message)?.[1]).find((pid) => pid !== undefined));
}

async function messages(jobId: string): Promise<string[]> {
  return (await fleet.record.records.listEvents(jobId, { limit: 1000 })).items.map(({ message }) => message);
}

test(
  'it hangs after two steps: noted with its phase, killed, and the job goes on from its checkpoint',
  async () => {
    const { records } = fleet.record;
    fleet.startWorker('one', SILENCE);
    const job = await fleet.submit({ steps: 4, checkpointEvery: 2, holdAt: 3, gate: fleet.gate('held') });
    await until('the checkpoint', async () => (await fleet.record.fleet.latestCheckpoint(job)) !== null);
    const pid = await enginePid(job);
    process.kill(pid, 'SIGSTOP');
    await fleet.openGate('held');

    await until('the note', async () => (await fleet.attempts(job))[0]?.stuckAt != null);
    expect(await messages(job)).toContainEqual(expect.stringMatching(/^Stuck: nothing heard from the engine for \d+ s in its phase "training"$/));
    expect(isProcessAlive(pid)).toBe(true);

    await fleet.untilStatus(job, 'succeeded');
    const [hung, second] = await fleet.attempts(job);
    expect(hung).toMatchObject({ outcome: 'failed', failure: { class: 'infrastructure', code: 'stuck', message: expect.stringMatching(/^nothing heard from the engine for [67] s/) as string } });
    expect(second).toMatchObject({ outcome: 'succeeded' });
    expect(await records.getCheckpoint(second?.resumeCheckpointId ?? '')).toMatchObject({ step: 2 });
    await until('the hung engine to be gone', () => !isProcessAlive(pid));
    expect(await fleet.record.losses(job)).toEqual([1, 2, 3, 4].map((step) => ({ name: 'loss', step, value: 1 / step })));
    expect(await fleet.record.fleet.getJob(job)).toMatchObject({ infraFailures: 1 });
  },
  TEST_MS,
);

test(
  'it hangs before its first word: the same',
  async () => {
    fleet.startWorker('one', SILENCE);
    const first = await fleet.submit({ steps: 1 });
    await fleet.untilStatus(first, 'succeeded');
    const pid = await enginePid(first);
    process.kill(pid, 'SIGSTOP');

    const job = await fleet.submit({ steps: 2 });
    await fleet.untilStatus(job, 'succeeded');
    expect((await fleet.attempts(job)).map(({ outcome, failure }) => [outcome, failure?.code])).toEqual([
      ['failed', 'stuck'],
      ['succeeded', undefined],
    ]);
    expect(await messages(job)).toContainEqual(expect.stringMatching(/^Stuck: nothing heard from the engine for \d+ s since it was given the job$/));
    expect(isProcessAlive(pid)).toBe(false);
  },
  TEST_MS,
);

test(
  'one that goes on before its time is over is left alone, and the note is taken back',
  async () => {
    fleet.startWorker('one', { env: { TUNEFLEET_ENGINE_SILENCE_SECONDS: '15' } });
    const job = await fleet.submit({ steps: 3, holdAt: 3, gate: fleet.gate('held') });
    await fleet.untilStep(job, 2);
    const pid = await enginePid(job);
    process.kill(pid, 'SIGSTOP');
    await until('the note', async () => (await fleet.attempts(job))[0]?.stuckAt != null);
    process.kill(pid, 'SIGCONT');
    await fleet.openGate('held');
    await fleet.untilStatus(job, 'succeeded');
    expect(await fleet.attempts(job)).toMatchObject([{ outcome: 'succeeded', stuckAt: null }]);
    expect(await messages(job)).toContainEqual(expect.stringMatching(/^The engine goes on after \d+ s of silence$/));
  },
  TEST_MS,
);
