import { submit, untilEnd, untilStep } from './harness/jobs';
import { System } from './harness/system';
import { until } from '@tunefleet/testing';

const TEST_MS = 240_000;
let system: System;
beforeAll(async () => {
  system = await System.start({ workers: 2 });
}, TEST_MS);
afterAll(async () => {
  const { code, left } = await system.stop();
  expect({ code, left }).toEqual({ code: 0, left: [] });
}, 120_000);

test('two workers run two jobs at once, and a third waits its turn and says why', async () => {
  const client = system.sdk();
  const long = { rows: 40, epochs: 50 };
  const first = await submit(system, long);
  const second = await submit(system, long);
  await Promise.all([untilStep(client, first, 2), untilStep(client, second, 2)]);
  const third = await submit(system, { rows: 12, epochs: 1, batchSize: 4 });
  await until('the third job to wait', async () => (await client.jobs.get(third)).waiting_reason !== null);

  const running = await Promise.all([first, second].map((id) => client.jobs.get(id)));
  expect(running.map((job) => job.status)).toEqual(['running', 'running']);
  expect(new Set(running.map((job) => job.attempts[0]?.worker_id)).size).toBe(2);

  await client.jobs.cancel(first);
  expect((await untilEnd(client, third)).status).toBe('succeeded');
  await client.jobs.cancel(second);
  expect((await client.workers.list()).data.map((worker) => worker.name).sort()).toEqual(['worker-1', 'worker-2']);
}, TEST_MS);

test('once a job was measured, those that wait say their turn and when it may come, and the command line lists it; use is on record', async () => {
  const client = system.sdk();
  const long = { rows: 40, epochs: 50 };
  const running = [await submit(system, long), await submit(system, long)];
  await Promise.all(running.map((id) => untilStep(client, id, 5)));
  const waiting: string[] = [];
  for (const turn of ['first', 'second']) {
    const id = await submit(system, { rows: 12, epochs: 1, batchSize: 4 });
    // A job's turn counts from when its data were found good.
    await until(`the ${turn} job to be queued`, async () => (await client.jobs.get(id)).status === 'queued');
    waiting.push(id);
  }
  await until('both to know their turn and start', async () => (await Promise.all(waiting.map((id) => client.jobs.get(id)))).every((job) => job.queue_position !== null && job.estimated_start !== null));
  const jobs = await Promise.all(waiting.map((id) => client.jobs.get(id)));
  expect(jobs.map((job) => job.queue_position)).toEqual([1, 2]);
  for (const job of jobs) expect(job).toMatchObject({ waiting_code: 'workers_busy', waiting_reason: 'waiting for a free worker: 2 workers fit and are busy' });
  const { stdout } = await system.cli('jobs', 'list', '--status', 'queued');
  expect(stdout).toMatch(/#1 · starts about .* · waiting for a free worker/);
  for (const id of running) await client.jobs.cancel(id);
  await Promise.all(waiting.map((id) => untilEnd(client, id)));
  const [team] = (await client.teams.list()).data;
  expect(team?.usage).toMatchObject({ running_jobs: 0, queued_jobs: 0 });
  expect(team?.usage.gpu_hours_month).toBeGreaterThan(0);
  expect((await system.cli('teams')).stdout).toMatch(/GPU-HOURS THIS MONTH/);
}, TEST_MS);
