/**
 * What users and operators may do to jobs and workers, through the API of the control plane as a process, with the stock OpenAI client where it
 * has the call. A run's middle is played through the record (`RecordWorker`).
 */
import OpenAI, { BadRequestError } from 'openai';
import { fineTuningJobSchema, jobDetailSchema, workerSchema, type JobDetail } from '@tunefleet/contracts';
import { TunefleetClient } from '@tunefleet/client-sdk';
import type { AssignmentRecord } from '@tunefleet/ports';
import { until } from './fleet/testing/fleet-harness';
import { API_KEY, ControlPlaneProcess } from './testing/control-plane-process';
import { FINE_TUNE_RESULT, RecordWorker, trainingRows } from './testing/record-worker';

const BASE = 'HuggingFaceTB/SmolLM2-135M-Instruct';
const TEST_MS = 60_000;
let server: ControlPlaneProcess;
let openai: OpenAI;
let client: TunefleetClient;
let training: string;

beforeAll(async () => {
  server = await ControlPlaneProcess.open();
  openai = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: API_KEY, maxRetries: 0 });
  client = new TunefleetClient({ baseUrl: server.url, apiKey: API_KEY, maxRetries: 0 });
  training = await server.upload(trainingRows(12));
}, 180_000);
afterAll(() => server.close(), 60_000);

type Extras = Parameters<typeof client.fineTuning.jobs.create>[0];

async function create(changes: Partial<Extras> = {}): Promise<string> {
  return (await client.fineTuning.jobs.create({ model: BASE, training_file: training, tuner: { kind: 'lora', r: 4 }, ...changes })).id;
}

async function queued(changes: Partial<Extras> = {}): Promise<string> {
  const id = await create(changes);
  await until(`${id} to be queued`, async () => (await client.jobs.get(id)).status === 'queued');
  return id;
}

const newWorker = () => new RecordWorker(server.store.fleet, server.blobs);

/** As a worker that has written its checkpoint. */
function handBack({ key }: AssignmentRecord): Promise<unknown> {
  return server.store.fleet.endAttempt(key, { outcome: 'stopped', failure: null, after: { then: 'retry', counts: 'none', delayMs: 0 } });
}

async function failed(): Promise<JobDetail> {
  const id = await queued({ seed: 11, metadata: { owner: 'me' }, suffix: 'mine', hyperparameters: { n_epochs: 2 } });
  const worker = newWorker();
  const run = await worker.take(id);
  await worker.say(run, { type: 'progress', step: 7, totalSteps: 24, phase: 'train', tokensPerSecond: 1, etaSeconds: 1, microBatchSize: 2 });
  const failure = { class: 'user' as const, code: 'numerical', message: 'the loss is not finite', param: null, logTail: ['line one', 'line two'] };
  await server.store.fleet.endAttempt(run.key, { outcome: 'failed', failure, after: { then: 'fail' } });
  await worker.leave();
  return client.jobs.get(id);
}

describe('pause and resume, as the OpenAI client calls them', () => {
  test('of a queued job', async () => {
    const id = await queued();
    expect(fineTuningJobSchema.parse(await openai.fineTuning.jobs.pause(id)).status).toBe('paused');
    expect((await openai.fineTuning.jobs.pause(id)).status).toBe('paused');
    expect((await openai.fineTuning.jobs.resume(id)).status).toBe('queued');
    const again = openai.fineTuning.jobs.resume(id);
    await expect(again).rejects.toBeInstanceOf(BadRequestError);
    await expect(again).rejects.toMatchObject({ code: 'illegal_transition', message: expect.stringContaining('only a paused job can be resumed') });
    await openai.fineTuning.jobs.cancel(id);
    await expect(openai.fineTuning.jobs.pause(id)).rejects.toMatchObject({ code: 'illegal_transition' });
  }, TEST_MS);

  test('of a running job: it runs on until its worker has handed it back, and shows so', async () => {
    const id = await queued();
    const worker = newWorker();
    const run = await worker.take(id);
    const asked = fineTuningJobSchema.parse(await openai.fineTuning.jobs.pause(id));
    expect(asked).toMatchObject({ status: 'running', x_meta: { stop_requested: 'paused' } });
    await worker.say(run, { type: 'checkpoint', step: 3, artifacts: [await worker.store('state.bin', 'state')], metrics: {} });
    await handBack(run);
    expect(fineTuningJobSchema.parse(await openai.fineTuning.jobs.retrieve(id))).toMatchObject({ status: 'paused', finished_at: null, x_meta: { stop_requested: null } });
    expect((await client.jobs.get(id)).attempts).toMatchObject([{ outcome: 'stopped', stop_reason: 'paused', step: 3, worker_name: `worker-${worker.id.slice(-6)}`, error: null }]);
    await worker.leave();

    expect((await client.jobs.resume(id)).status).toBe('queued');
    const next = newWorker();
    expect((await next.take(id)).resume?.step).toBe(3);
    expect((await client.jobs.pause(id)).stop_requested).toBe('paused');
    expect((await client.fineTuning.jobs.resume(id)).x_meta.stop_requested).toBe('resumed');
    await client.jobs.cancel(id);
    await next.leave();
  }, TEST_MS);
});

test('the priority of a waiting job can be changed, within its bounds', async () => {
  const id = await queued();
  expect((await client.jobs.setPriority(id, 7)).priority).toBe(7);
  await expect(client.jobs.setPriority(id, 101)).rejects.toMatchObject({ status: 400, param: 'priority' });
  await client.jobs.cancel(id);
  await expect(client.jobs.setPriority(id, 1)).rejects.toMatchObject({ status: 400, code: 'illegal_transition' });
}, TEST_MS);

describe('copies', () => {
  test('a failed job shows class, code, last log lines and its attempts; retried, it is a new job with the same request', async () => {
    const job = await failed();
    expect(job).toMatchObject({
      status: 'failed',
      error: { class: 'user', code: 'numerical', message: 'the loss is not finite', log_tail: ['line one', 'line two'] },
      attempts: [{ outcome: 'failed', step: 7, micro_batch_size: 2, stuck: false, stop_reason: null, error: { code: 'numerical' } }],
    });
    const retried = await client.jobs.retry(job.id);
    expect(retried).toMatchObject({ status: 'validating_files', source: { job_id: job.id, relation: 'retry' }, metadata: { owner: 'me' }, error: null, attempts: [] });
    await until('the retry to be queued', async () => (await client.jobs.get(retried.id)).status === 'queued');
    const { fineTunedModel: _name, requestHash: _hash, ...request } = (await client.jobs.get(retried.id)).spec;
    expect(job.spec).toMatchObject(request);
    expect((await client.jobs.get(retried.id)).worker_spec).toEqual(job.worker_spec);
    const once = { idempotencyKey: 'retry-once' };
    const twice = [await client.jobs.retry(job.id, once), await client.jobs.retry(job.id, once)];
    expect(twice[0]?.id).toBe(twice[1]?.id);
    await expect(client.jobs.retry(retried.id)).rejects.toMatchObject({ status: 400, code: 'illegal_transition', message: expect.stringContaining('clone it') });
    for (const id of [retried.id, twice[0]?.id ?? '']) await client.jobs.cancel(id);
  }, TEST_MS);

  test('a clone has what was asked for, but for what is changed; what was left open is settled anew', async () => {
    const id = await queued({ seed: 11, metadata: { owner: 'me' }, hyperparameters: { n_epochs: 2, learning_rate_multiplier: 2 }, priority: 4 });
    const more = await server.upload(trainingRows(200));
    const clone = await client.jobs.clone(id, { training_file: more, seed: 12, hyperparameters: { learning_rate: 0.001 }, priority: 5, share: false });
    expect(clone).toMatchObject({ source: { job_id: id, relation: 'clone' }, priority: 5, metadata: { owner: 'me' }, spec: { share: false } });
    const again = await client.jobs.clone(clone.id, { metadata: null, share: null });
    expect(again).toMatchObject({ metadata: null, spec: { seed: 12 } });
    expect(again.spec).not.toHaveProperty('share');
    await until('the clone to be queued', async () => (await client.jobs.get(clone.id)).status === 'queued');
    const [original, copy] = [await client.jobs.get(id), await client.jobs.get(clone.id)];
    expect(original.worker_spec).toMatchObject({ seed: 11, epochs: 2, learningRate: 4e-4, tuner: { r: 4 } });
    expect(copy.worker_spec).toMatchObject({ seed: 12, epochs: 2, learningRate: 0.001, tuner: { r: 4 } });
    expect(copy.total_steps).toBe(2 * Math.ceil(200 / 8));
    await expect(client.jobs.clone(id, { colour: 'red' })).rejects.toMatchObject({ status: 400, reason: 'unknown_parameter', param: 'colour' });
    await expect(client.jobs.clone(id, { training_file: 'file-none' })).rejects.toMatchObject({ status: 400, reason: 'file_not_found', param: 'training_file' });
    const unchanged = jobDetailSchema.parse(await (await server.post(`/api/v1/jobs/${id}/clone`, '')).json());
    for (const each of [id, clone.id, again.id, unchanged.id]) await client.jobs.cancel(each);
  }, TEST_MS);

  test('an eval is cloned by its own fields', async () => {
    const file = await server.upload(trainingRows(3), 'evals');
    const made = await client.evals.create({ model: BASE, file, metric: { type: 'exact_match', max_tokens: 8 }, limit: 2, metadata: { a: 'b' } });
    const clone = await client.jobs.clone(made.id, { samples: 1 });
    expect(await client.evals.get(clone.id)).toMatchObject({ file, limit: 2, samples: 1, metric: { type: 'exact_match', max_tokens: 8 }, metadata: { a: 'b' } });
    await expect(client.jobs.clone(made.id, { training_file: file })).rejects.toMatchObject({ reason: 'unknown_parameter', param: 'training_file' });
    for (const id of [made.id, clone.id]) await client.evals.cancel(id);
  }, TEST_MS);
});

describe('jobs after others', () => {
  test('wait for them with a reason, and are skipped with a reason', async () => {
    const parent = await queued();
    const child = fineTuningJobSchema.parse(await openai.fineTuning.jobs.create({ model: BASE, training_file: training, after: [parent, parent] } as never));
    expect(child.x_meta.after).toEqual([parent]);
    const evalFile = await server.upload(trainingRows(3), 'evals');
    const grandchild = await client.evals.create({ model: BASE, file: evalFile, metric: { type: 'exact_match' }, after: [child.id] });
    await until('the child to wait', async () => (await client.fineTuning.jobs.get(child.id)).x_meta.waiting_reason === `waiting for ${parent} (queued) to succeed`);
    await client.jobs.cancel(parent);
    expect(await client.fineTuning.jobs.get(child.id)).toMatchObject({ status: 'cancelled', error: { code: 'parent_not_succeeded', param: 'after', message: expect.stringContaining(`job ${parent}, after which it was to run, was cancelled`) } });
    expect(await client.evals.get(grandchild.id)).toMatchObject({ status: 'cancelled', error: { message: expect.stringContaining(child.id) } });
    await expect(create({ after: [parent] })).rejects.toMatchObject({ status: 400, reason: 'parent_not_succeeded', param: 'after' });
    await expect(create({ after: ['ftjob-none'] })).rejects.toMatchObject({ status: 400, reason: 'parent_not_found', param: 'after' });
    await expect(create({ after: Array.from({ length: 17 }, (_, i) => `ftjob-${i}`) })).rejects.toMatchObject({ status: 400, param: 'after' });
  }, TEST_MS);

  test('start when they have succeeded', async () => {
    const parent = await queued();
    const child = await queued({ after: [parent] });
    const worker = newWorker();
    const run = await worker.take(parent);
    const { fineTunedModel } = run.job.spec;
    const adapter = { name: fineTunedModel as string, baseModel: BASE, baseRevision: 'r1', tunerKind: 'lora' };
    await worker.complete(run, { result: FINE_TUNE_RESULT, artifacts: [await worker.store('adapter_config.json', '{}')], adapter });
    await worker.leave();
    const next = newWorker();
    expect((await next.take(child)).job.id).toBe(child);
    await client.jobs.cancel(child);
    await next.leave();
  }, TEST_MS);
});

test('a worker is drained, shows when it is empty, and comes back', async () => {
  const id = await queued();
  const worker = newWorker();
  const run = await worker.take(id);
  const view = async () => (await client.workers.list()).data.find((each) => each.id === worker.id);
  expect(workerSchema.parse(await client.workers.drain(worker.id, { deadline_seconds: 3600 }))).toMatchObject({ cordoned: true, drain: { mode: 'wait', state: 'draining', deadline: expect.any(Number) } });
  expect((await client.jobs.get(id)).stop_requested).toBeNull();
  expect(await client.workers.drain(worker.id, { mode: 'move' })).toMatchObject({ drain: { mode: 'move', state: 'draining', deadline: null } });
  expect((await client.jobs.get(id)).stop_requested).toBe('drained');
  await handBack(run);
  expect(await view()).toMatchObject({ drain: { state: 'drained' }, cordon_reason: 'draining' });
  expect((await client.jobs.get(id)).status).toBe('queued');
  expect(await (await server.post(`/api/v1/workers/${worker.id}/undrain`, '')).json()).toMatchObject({ cordoned: false, drain: null, cordon_reason: null });
  expect(await client.workers.cordon(worker.id, 'new disk')).toMatchObject({ cordoned: true, cordon_reason: 'new disk' });
  await client.workers.uncordon(worker.id);
  await client.jobs.cancel(id);
  await worker.leave();
}, TEST_MS);

test.each([
  ['POST', '/v1/fine_tuning/jobs/ftjob-none/pause'],
  ['POST', '/v1/fine_tuning/jobs/ftjob-none/resume'],
  ['POST', '/api/v1/jobs/none/pause'],
  ['POST', '/api/v1/jobs/none/resume'],
  ['POST', '/api/v1/jobs/none/clone'],
  ['POST', '/api/v1/jobs/none/retry'],
  ['POST', '/api/v1/workers/none/drain'],
  ['POST', '/api/v1/workers/none/undrain'],
])('%s %s: not found', async (method, path) => expect((await server.fetch(path, { method })).status).toBe(404));
