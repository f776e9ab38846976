import { submit, untilEnd, untilStep } from './harness/jobs';
import { System } from './harness/system';
import { until } from './harness/wait';

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
