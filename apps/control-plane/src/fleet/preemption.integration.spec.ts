/**
 * Making room, from the plan to the worker and back: the real plan, the real record, a real worker process with a fake engine. Only the ten
 * minutes for which a running job is left alone are over from the start.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { plan, PREEMPTION_GRACE_MS, type Snapshot } from '@tunefleet/domain-scheduling';
import type { EmbeddedPostgres } from '@tunefleet/postgres-embedded';
import { bundleWorker, FleetHarness, removeBundles, until } from './testing/fleet-harness';
import { startTestPostgres } from './testing/test-record';

let postgresDir: string;
let postgres: EmbeddedPostgres;
let fleet: FleetHarness;

beforeAll(async () => {
  await bundleWorker();
  postgresDir = await mkdtemp(join(tmpdir(), 'fleet-postgres-'));
  postgres = await startTestPostgres(postgresDir);
  fleet = await FleetHarness.open(postgres.url, (seen: Snapshot) => plan({ ...seen, running: seen.running.map((job) => ({ ...job, assignedAtMs: job.assignedAtMs - PREEMPTION_GRACE_MS })) }));
}, 120_000);
afterAll(async () => {
  await fleet.close();
  await postgres.stop();
  await rm(postgresDir, { recursive: true, force: true });
  await removeBundles();
}, 60_000);

test('a job of a higher class gets the worker; the other one writes a checkpoint, goes back and ends as if nothing had been', async () => {
  const { fleet: store, records, teamId, losses } = fleet.record;
  fleet.startWorker('only');
  const gate = fleet.gate('held');
  const long = await fleet.submit({ steps: 500, holdAt: 20, gate });
  await fleet.untilStep(long, 19);
  const urgent = await fleet.submit({ steps: 5 });
  await until('the other job to say why it waits', async () => (await store.getJob(urgent))?.waitingCode === 'workers_busy');
  expect(await store.getJob(urgent)).toMatchObject({ queuePosition: 1, waitingReason: 'waiting for a free worker: 1 worker fits and is busy' });

  await records.setJobPriority(teamId, urgent, 60);
  await fleet.untilStatus(urgent, 'succeeded');
  expect(await fleet.attempts(urgent)).toHaveLength(1);
  const [first] = await fleet.attempts(long);
  expect(first).toMatchObject({ outcome: 'stopped', stopReason: 'preempted', preemptedForJobId: urgent, failure: null });

  await fleet.openGate('held');
  await fleet.untilStatus(long, 'succeeded');
  const attempts = await fleet.attempts(long);
  expect(attempts.map(({ outcome }) => outcome)).toEqual(['stopped', 'succeeded']);
  expect(await records.getCheckpoint(attempts[1]?.resumeCheckpointId ?? '')).toMatchObject({ step: 19 });
  expect(await store.getJob(long)).toMatchObject({ preemptions: 1, infraFailures: 0 });
  expect((await losses(long)).map(({ step }) => step)).toEqual(Array.from({ length: 500 }, (_, index) => index + 1));
  const { items } = await records.listEvents(long, { limit: 2000 });
  expect(items.some(({ message }) => message === 'Stopping after a checkpoint: a job of higher rank needs the worker')).toBe(true);
}, 60_000);
