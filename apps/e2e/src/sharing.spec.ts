import type { JobDetail } from '@tunefleet/contracts';
import type { TunefleetClient } from '@tunefleet/client-sdk';
import { adapterValues } from './harness/adapters';
import { losses, submit, untilEnd, untilStep, type JobWish } from './harness/jobs';
import { System } from './harness/system';

/**
 * Small jobs of a team that allows it, on one worker: they run beside each other and give what each gives alone. All are submitted at once; those that decline come first and last,
 * so that the others wait together.
 */
const TEST_MS = 300_000;
/** Of losses and weights: only the order of f32 sums differs. */
const TOLERANCE = 2e-5;
const ALL_MAPS = { target_modules: 'all-linear' } as const;
const base = { rows: 20, epochs: 2, computeDtype: 'f32' } as const;
/** Different in all that jobs on one base may differ in. */
const WISHES: readonly JobWish[] = [
  { ...base, seed: 1, tuner: { kind: 'lora', r: 4, lora_dropout: 0.1, ...ALL_MAPS } },
  { ...base, seed: 2, rows: 24, batchSize: 2, learningRate: 3e-4, tuner: { kind: 'lora', r: 8, ...ALL_MAPS } },
  { ...base, seed: 3, rows: 30, learningRate: 5e-4, tuner: { kind: 'ia3' } },
];
const CANCELLED: JobWish = { ...base, seed: 4, rows: 400, tuner: { kind: 'lora', r: 4, ...ALL_MAPS } };

let system: System;
let client: TunefleetClient;
beforeAll(async () => {
  system = await System.start();
  client = system.sdk();
  const [team] = (await client.teams.list()).data;
  await client.teams.change(team?.name ?? '', { shares_workers: true });
}, 240_000);
afterAll(async () => {
  const { code, left } = await system.stop();
  expect({ code, left }).toEqual({ code: 0, left: [] });
}, 120_000);

type Attempt = JobDetail['attempts'][number];
function onlyAttempt({ attempts }: JobDetail): Attempt {
  expect(attempts).toHaveLength(1);
  return attempts[0] as Attempt;
}

test('jobs run beside each other on one worker and give what each gives alone; one is cancelled, one has its worker to itself', async () => {
  const aloneIds: string[] = [];
  for (const wish of WISHES) aloneIds.push(await submit(system, { ...wish, share: false }));
  const sharedIds: string[] = [];
  for (const wish of WISHES) sharedIds.push(await submit(system, wish));
  const cancelledId = await submit(system, CANCELLED);
  const lastId = await submit(system, { ...base, share: false });

  await untilStep(client, cancelledId, 5);
  const seen = await client.jobs.get(cancelledId);
  await client.jobs.cancel(cancelledId);
  const [alone, shared] = [[] as JobDetail[], [] as JobDetail[]];
  for (const id of aloneIds) alone.push(await untilEnd(client, id));
  for (const id of sharedIds) shared.push(await untilEnd(client, id));
  const last = await untilEnd(client, lastId);
  const cancelled = await client.jobs.get(cancelledId);

  expect([...alone, last].map(({ status, may_share_worker }) => [status, may_share_worker])).toEqual(Array.from({ length: 4 }, () => ['succeeded', false]));
  expect(shared.map(({ status, error, may_share_worker }) => [status, error, may_share_worker])).toEqual(shared.map(() => ['succeeded', null, true]));
  expect(cancelled).toMatchObject({ status: 'cancelled', may_share_worker: true });

  // All four were there at once, each in a place of its own.
  const together = [...shared, cancelled].map(onlyAttempt);
  expect(new Set(together.map(({ slot }) => slot)).size).toBe(4);
  for (const [index, attempt] of together.entries()) {
    const others = [...sharedIds, cancelledId].filter((_, other) => other !== index);
    expect({ ...attempt.shared_worker_with, jobs: [...attempt.shared_worker_with.jobs].sort() }).toEqual({ jobs: others.sort(), other_teams_jobs: 0 });
  }
  expect(seen.shares_worker_with.jobs.length).toBeGreaterThan(0);
  for (const id of sharedIds) expect((await client.jobs.events(id, { limit: 100 })).data.some(({ message }) => message.startsWith('steps are made together with'))).toBe(true);
  for (const job of [...alone, last]) expect(onlyAttempt(job).shared_worker_with).toEqual({ jobs: [], other_teams_jobs: 0 });
  expect(onlyAttempt(last).assigned_at).toBeGreaterThanOrEqual(Math.max(...together.map(({ finished_at }) => finished_at ?? Infinity)));

  // The same numbers.
  for (const [index, id] of sharedIds.entries()) {
    const [wanted, got] = [await losses(client, aloneIds[index] as string), await losses(client, id)];
    expect(got.map(({ step }) => step)).toEqual(wanted.map(({ step }) => step));
    expect(Math.max(...got.map(({ value }, step) => Math.abs(value - (wanted[step]?.value ?? NaN))))).toBeLessThan(TOLERANCE);
    const [wantedValues, values] = [await adapterValues(client, alone[index]?.adapter_id ?? ''), await adapterValues(client, shared[index]?.adapter_id ?? '')];
    expect([...values.keys()]).toEqual([...wantedValues.keys()]);
    for (const [name, numbers] of values) expect(numbers.reduce((most, value, at) => Math.max(most, Math.abs(value - (wantedValues.get(name)?.[at] ?? NaN))), 0)).toBeLessThan(TOLERANCE);
  }

  // What is charged of the worker is no more than the time there was; shared time is charged once.
  const attempts = [...alone, ...shared, cancelled, last].map(onlyAttempt);
  const charged = attempts.reduce((sum, { gpu_seconds }) => sum + gpu_seconds, 0);
  const reported = (await client.usage.report()).data.reduce((sum, { gpu_seconds }) => sum + gpu_seconds, 0);
  expect(reported).toBeCloseTo(charged, 3);
  // Times are told in whole seconds.
  const wall = Math.max(...attempts.map(({ finished_at }) => finished_at ?? NaN)) + 1 - Math.min(...attempts.map(({ assigned_at }) => assigned_at));
  expect(charged).toBeLessThanOrEqual(wall);
  const beside = together.reduce((sum, { gpu_seconds }) => sum + gpu_seconds, 0);
  expect(beside).toBeLessThanOrEqual(Math.max(...together.map(({ finished_at }) => finished_at ?? NaN)) + 1 - Math.min(...together.map(({ assigned_at }) => assigned_at)));
}, TEST_MS);
