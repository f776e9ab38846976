import { losses, submit, untilEnd, untilStep, type JobWish } from './harness/jobs';
import { System } from './harness/system';

/**
 * Processes are killed the hard way in the middle of a job. However it goes on, the record must look as if nothing had happened:
 * one end, every step once, and the same losses, bit for bit, as an undisturbed run of the same job.
 */
const WISH: JobWish = { rows: 40, epochs: 6, checkpointEvery: 30 };
const STEPS = WISH.rows * WISH.epochs;
const TEST_MS = 300_000;

let system: System;
let undisturbed: readonly { readonly step: number; readonly value: number }[];

beforeAll(async () => {
  system = await System.start();
  const client = system.sdk();
  const jobId = await submit(system, WISH);
  expect(await untilEnd(client, jobId)).toMatchObject({ status: 'succeeded', error: null });
  undisturbed = await losses(client, jobId);
  expect(undisturbed.map((point) => point.step)).toEqual(Array.from({ length: STEPS }, (_, index) => index + 1));
}, TEST_MS);
afterAll(async () => {
  const { code, left } = await system.stop();
  expect({ code, left }).toEqual({ code: 0, left: [] });
}, 120_000);

test.each([
  { program: 'engine', attempts: 2 },
  { program: 'worker', attempts: 2 },
  { program: 'control-plane', attempts: 1 },
] as const)(
  'kill -9 of the $program: the job ends once, with every step once and the same losses',
  async ({ program, attempts }) => {
    const client = system.sdk();
    const jobId = await submit(system, WISH);
    // After the first checkpoint, and not at one.
    await untilStep(client, jobId, 40);
    await system.kill(program);
    const job = await untilEnd(client, jobId);
    expect(job).toMatchObject({ status: 'succeeded', error: null, step: STEPS });
    expect(await losses(client, jobId)).toEqual(undisturbed);
    expect(job.attempts).toHaveLength(attempts);
    expect(job.attempts.filter((attempt) => attempt.outcome === 'succeeded')).toHaveLength(1);
    // The second attempt went on from a checkpoint, not from the start.
    if (attempts === 2) expect(job.attempts.find((attempt) => attempt.outcome === 'succeeded')?.resume_checkpoint_id).not.toBeNull();
    const adapters = (await client.adapters.list()).data.filter((adapter) => adapter.job_id === jobId);
    expect(adapters.map((adapter) => adapter.id)).toEqual([job.adapter_id]);
  },
  TEST_MS,
);

test('the killed processes are running again, each once', async () => {
  for (const program of ['engine', 'worker', 'control-plane'] as const) expect(await system.pidOf(program)).toBeGreaterThan(0);
}, TEST_MS);
