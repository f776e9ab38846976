import type { JobDetail } from '@tunefleet/contracts';
import { losses, submit, untilEnd, untilStep, type JobWish } from './harness/jobs';
import { System } from './harness/system';
import { until } from '@tunefleet/testing';

/**
 * Users and operators interrupt jobs with the command line: pause and resume, drain, cancel. Whatever is asked, the losses of the job are those
 * of an undisturbed run, bit for bit. Checkpoints come from the interruptions alone: the job writes none before its first epoch has ended.
 */
const WISH: JobWish = { rows: 120, epochs: 1, computeDtype: 'f32' };
const TEST_MS = 240_000;
const CANCEL_MS_MAX = 2_000;

let system: System;
let undisturbed: readonly { readonly step: number; readonly value: number }[];

beforeAll(async () => {
  system = await System.start({ workers: 2 });
  const jobId = await submit(system, WISH);
  expect(await untilEnd(system.sdk(), jobId)).toMatchObject({ status: 'succeeded', error: null });
  undisturbed = await losses(system.sdk(), jobId);
  expect(undisturbed).toHaveLength(WISH.rows * WISH.epochs);
}, TEST_MS);
afterAll(async () => {
  const { code, left } = await system.stop();
  expect({ code, left }).toEqual({ code: 0, left: [] });
}, 120_000);

async function tunefleet(...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await system.cli(...args);
  expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' });
  return stdout;
}

async function attemptsOf(jobId: string): Promise<JobDetail['attempts']> {
  return (await system.sdk().jobs.get(jobId)).attempts;
}

test('paused and resumed: the same losses as undisturbed', async () => {
  const client = system.sdk();
  const jobId = await submit(system, WISH);
  await untilStep(client, jobId, 20);
  expect(await tunefleet('jobs', 'pause', jobId)).toContain('is paused as soon as it has written a checkpoint');
  await until('the job to be paused', async () => (await client.jobs.get(jobId)).status === 'paused');
  const [first] = await attemptsOf(jobId);
  expect(first).toMatchObject({ outcome: 'stopped', stop_reason: 'paused', error: null });
  const [checkpoint] = (await client.jobs.checkpoints(jobId)).data;
  expect(checkpoint?.step).toBe(first?.step);
  expect((await losses(client, jobId)).at(-1)?.step).toBe(first?.step);
  expect(first?.step).toBeLessThan(WISH.rows);

  expect(await tunefleet('jobs', 'resume', jobId)).toContain('queued');
  const job = await untilEnd(client, jobId);
  expect(job).toMatchObject({ status: 'succeeded', error: null, step: WISH.rows });
  expect(job.attempts).toMatchObject([{ outcome: 'stopped' }, { outcome: 'succeeded', resume_checkpoint_id: checkpoint?.id, step: WISH.rows }]);
  expect(await losses(client, jobId)).toEqual(undisturbed);
  expect(await tunefleet('jobs', 'show', jobId)).toMatch(/worker-\d +stopped \(paused\) +\d+/);
}, TEST_MS);

test('a drained worker hands its job to the other one: the same losses as undisturbed', async () => {
  const client = system.sdk();
  const jobId = await submit(system, WISH);
  await untilStep(client, jobId, 20);
  const drained = (await attemptsOf(jobId))[0]?.worker_name ?? '';
  expect(await tunefleet('workers', 'drain', drained, '--move', '--wait')).toContain(`${drained} online, drained`);
  const job = await untilEnd(client, jobId);
  expect(job).toMatchObject({ status: 'succeeded', error: null });
  expect(job.attempts).toMatchObject([{ worker_name: drained, outcome: 'stopped', stop_reason: 'drained' }, { outcome: 'succeeded' }]);
  expect(job.attempts[1]?.worker_name).not.toBe(drained);
  expect(await losses(client, jobId)).toEqual(undisturbed);
  expect(await tunefleet('workers')).toMatch(new RegExp(`${drained} +online, drained`));
  expect(await tunefleet('workers', 'undrain', drained)).toContain(`${drained} online`);
}, TEST_MS);

test('a cancel takes effect on the worker within two seconds', async () => {
  const client = system.sdk();
  const jobId = await submit(system, WISH);
  await untilStep(client, jobId, 5);
  const asked = performance.now();
  await client.jobs.cancel(jobId);
  await until('the attempt to end', async () => (await attemptsOf(jobId))[0]?.outcome === 'stopped');
  expect(performance.now() - asked).toBeLessThan(CANCEL_MS_MAX);
}, TEST_MS);
