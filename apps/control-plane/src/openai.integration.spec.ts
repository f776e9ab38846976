/**
 * The stock OpenAI client against the control plane as a process: files, fine-tuning, models. A run's middle is played through the record
 * (`RecordWorker`); everything else is real.
 */
import OpenAI, { BadRequestError, NotFoundError, AuthenticationError, toFile } from 'openai';
import { fineTuningJobSchema, fineTuningCheckpointListSchema, apiFileSchema, apiModelSchema, type FineTuneSpec } from '@tunefleet/contracts';
import { until } from './fleet/testing/fleet-harness';
import { API_KEY, ControlPlaneProcess, TEAM } from './testing/control-plane-process';
import { FINE_TUNE_RESULT, RecordWorker, trainingRows } from './testing/record-worker';

const BASE = 'HuggingFaceTB/SmolLM2-135M-Instruct';
const TEST_MS = 60_000;

let server: ControlPlaneProcess;
let client: OpenAI;

beforeAll(async () => {
  server = await ControlPlaneProcess.open();
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: API_KEY, maxRetries: 0 });
}, 180_000);
afterAll(() => server.close(), 60_000);

async function rejection(work: PromiseLike<unknown>): Promise<InstanceType<typeof OpenAI.APIError>> {
  try {
    await work;
  } catch (error) {
    return error as InstanceType<typeof OpenAI.APIError>;
  }
  throw new Error('it was expected to fail');
}

describe('files', () => {
  test('are stored, listed, read back and deleted', async () => {
    const content = trainingRows(12);
    const file = await client.files.create({ file: await toFile(Buffer.from(content), 'train.jsonl'), purpose: 'fine-tune' });
    expect(apiFileSchema.parse(file)).toMatchObject({ object: 'file', filename: 'train.jsonl', purpose: 'fine-tune', bytes: content.length });
    expect(Math.abs(file.created_at - Date.now() / 1000)).toBeLessThan(60);
    expect(await client.files.retrieve(file.id)).toEqual(file);
    expect(await (await client.files.content(file.id)).text()).toBe(content);
    const listed = [];
    for await (const item of client.files.list({ purpose: 'fine-tune' })) listed.push(item.id);
    expect(listed).toContain(file.id);
    expect(await client.files.delete(file.id)).toEqual({ id: file.id, object: 'file', deleted: true });
    expect(await rejection(client.files.retrieve(file.id))).toBeInstanceOf(NotFoundError);
  }, TEST_MS);

  test('are paged in both directions, each once', async () => {
    const made = [];
    for (let i = 0; i < 5; i++) made.push((await client.files.create({ file: await toFile(Buffer.from(`${i}`), `${i}.txt`), purpose: 'user_data' })).id);
    for (const order of ['asc', 'desc'] as const) {
      const seen = [];
      for await (const item of client.files.list({ purpose: 'user_data', limit: 2, order })) seen.push(item.id);
      expect(seen).toEqual(order === 'asc' ? made : [...made].reverse());
    }
  }, TEST_MS);

  test('expire when told so', async () => {
    const file = await client.files.create({ file: await toFile(Buffer.from('x'), 'x.txt'), purpose: 'user_data', expires_after: { anchor: 'created_at', seconds: 3600 } });
    expect(file.expires_at).toBeGreaterThanOrEqual(file.created_at + 3599);
    expect(file.expires_at).toBeLessThanOrEqual(file.created_at + 3601);
  }, TEST_MS);

  test('with a purpose that is none are refused', async () => {
    const error = await rejection(client.files.create({ file: await toFile(Buffer.from('x'), 'x.txt'), purpose: 'assistants' }));
    expect(error).toBeInstanceOf(BadRequestError);
    expect(error).toMatchObject({ status: 400, param: 'purpose', code: 'invalid_value', type: 'invalid_request_error' });
  }, TEST_MS);
});

describe('fine-tuning', () => {
  let training: string;
  beforeAll(async () => {
    training = await server.upload(trainingRows(12));
  });

  test('preferences: from the request to what a worker gets', async () => {
    const pair = (i: number, answer = 'no') => JSON.stringify({ input: { messages: [{ role: 'user', content: `q${i}` }] }, preferred_output: [{ role: 'assistant', content: 'yes' }], non_preferred_output: [{ role: 'assistant', content: answer }] });
    const pairs = Array.from({ length: 12 }, (_, i) => pair(i)).join('\n');
    const created = await client.fineTuning.jobs.create({ model: BASE, training_file: await server.upload(pairs), method: { type: 'dpo', dpo: { hyperparameters: { beta: 'auto', n_epochs: 2 } } } });
    expect(fineTuningJobSchema.parse(created).method).toMatchObject({ type: 'dpo', dpo: { hyperparameters: { beta: 'auto', n_epochs: 2, batch_size: 'auto' } } });
    const worker = new RecordWorker(server.store.fleet, server.blobs);
    const run = await worker.take(created.id);
    expect(run.job).toMatchObject({ schemaVersion: 2, workerSpec: { objective: { type: 'dpo', beta: 0.1 }, epochs: 2, batchSize: 8, learningRate: 2e-5 } });
    expect((await client.fineTuning.jobs.retrieve(created.id)).method).toMatchObject({ dpo: { hyperparameters: { beta: 0.1, batch_size: 8, learning_rate_multiplier: 1 } } });
    await worker.leave();
    await client.fineTuning.jobs.cancel(created.id);

    const bad = await client.fineTuning.jobs.create({ model: BASE, training_file: await server.upload(`${pairs}\n${pair(12, 'yes')}`), method: { type: 'dpo' } });
    const get = () => client.fineTuning.jobs.retrieve(bad.id);
    await until('the end of the bad job', async () => (await get()).status === 'failed');
    expect((await get()).error).toMatchObject({ code: 'invalid_training_file', param: 'training_file', message: expect.stringMatching(/row 13, \/non_preferred_output: both outputs are the same/) as unknown });
  }, TEST_MS);

  test('plain text: documents are cut into rows', async () => {
    const method = { type: 'pretraining', pretraining: { hyperparameters: { batch_size: 2 } } };
    const response = await server.post('/v1/fine_tuning/jobs', JSON.stringify({ model: BASE, training_file: await server.upload(JSON.stringify({ text: 'word '.repeat(8000) })), method }));
    const created = fineTuningJobSchema.parse(await response.json());
    expect(created.method).toMatchObject(method);
    const worker = new RecordWorker(server.store.fleet, server.blobs);
    const run = await worker.take(created.id);
    // 40,000 bytes are about 10,000 tokens.
    expect(run.job).toMatchObject({ schemaVersion: 2, totalSteps: 5, workerSpec: { objective: { type: 'pretraining' }, epochs: 1, batchSize: 2, maxSequenceLength: 1024 } });
    await worker.leave();
    await client.fineTuning.jobs.cancel(created.id);
  }, TEST_MS);

  test('a job goes from creation to a model', async () => {
    const created = await client.fineTuning.jobs.create({
      model: BASE,
      training_file: training,
      suffix: 'mine',
      seed: 5,
      validation_file: null,
      method: { type: 'supervised', supervised: { hyperparameters: { n_epochs: 1, batch_size: 'auto' } } },
      metadata: { run: 'whole' },
    });
    expect(fineTuningJobSchema.parse(created)).toMatchObject({
      object: 'fine_tuning.job',
      model: BASE,
      seed: 5,
      fine_tuned_model: null,
      finished_at: null,
      error: null,
      trained_tokens: null,
      result_files: [],
      training_file: training,
      validation_file: null,
      organization_id: TEAM,
      metadata: { run: 'whole' },
      hyperparameters: { n_epochs: 1, batch_size: 'auto', learning_rate_multiplier: 'auto' },
    });

    const worker = new RecordWorker(server.store.fleet, server.blobs);
    const run = await worker.take(created.id);
    expect(run.job.workerSpec).toMatchObject({ base: { id: BASE }, epochs: 1, seed: 5, tuner: { kind: 'lora' } });
    const { revision: baseRevision } = (run.job.workerSpec as unknown as FineTuneSpec).base;
    await worker.say(run, { type: 'progress', step: 1, totalSteps: 2, phase: 'training', tokensPerSecond: 300, etaSeconds: 60 });
    await worker.say(run, { type: 'metrics', step: 1, values: { train_loss: 2 } }, { type: 'metrics', step: 2, values: { train_loss: 1, valid_loss: 1.5 } });
    await worker.say(run, { type: 'checkpoint', step: 2, artifacts: [await worker.store('state.bin', 'state')], metrics: { train_loss: 1 } });
    const running = await client.fineTuning.jobs.retrieve(created.id);
    expect(running).toMatchObject({ status: 'running', hyperparameters: { n_epochs: 1, batch_size: expect.any(Number) } });
    expect(running.estimated_finish).toBeGreaterThan(running.created_at);

    const name = run.job.spec['fineTunedModel'] as string;
    expect(name).toMatch(new RegExp(`^ft:${BASE}:${TEAM}:mine:[0-9a-z]{8}$`));
    await worker.complete(run, {
      result: FINE_TUNE_RESULT,
      artifacts: [await worker.store('adapter_config.json', '{}')],
      adapter: { name, baseModel: BASE, baseRevision, tunerKind: 'lora' },
      resultFiles: [{ filename: 'step_metrics.csv', ...(await worker.store('step_metrics.csv', 'step,train_loss\n1,2\n')) }],
    });
    await worker.leave();

    const done = await client.fineTuning.jobs.retrieve(created.id);
    expect(fineTuningJobSchema.parse(done)).toMatchObject({ status: 'succeeded', fine_tuned_model: name, trained_tokens: 640, finished_at: expect.any(Number) });
    const [resultFile = ''] = done.result_files;
    expect(await (await client.files.content(resultFile)).text()).toBe('step,train_loss\n1,2\n');
    expect((await client.files.retrieve(resultFile)).purpose).toBe('fine-tune-results');

    const checkpoints = await client.fineTuning.jobs.checkpoints.list(created.id);
    expect(fineTuningCheckpointListSchema.parse({ object: 'list', data: checkpoints.data, has_more: false, first_id: null, last_id: null }).data).toMatchObject([
      { step_number: 2, fine_tuned_model_checkpoint: `${name}:ckpt-step-2`, metrics: { step: 2, train_loss: 1 } },
    ]);

    const messages = [];
    for await (const event of client.fineTuning.jobs.listEvents(created.id, { limit: 2 })) messages.push(event.message);
    expect(new Set(messages).size).toBe(messages.length);
    expect(messages.at(-1)).toBe(`Job created: ${created.id}`);
    expect(messages[0]).toBe('The job has successfully completed');

    expect(apiModelSchema.parse(await client.models.retrieve(name))).toMatchObject({ id: name, owned_by: TEAM, parent: BASE });
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    expect(ids).toEqual(expect.arrayContaining([name, BASE, 'local/model']));

    const further = await client.fineTuning.jobs.create({ model: name, training_file: training });
    expect(further.model).toBe(BASE);
    await until('the job on top of the tuned model to be queued', async () => (await client.fineTuning.jobs.retrieve(further.id)).status === 'queued');
    await client.fineTuning.jobs.cancel(further.id);
    expect(await client.models.delete(name)).toEqual({ id: name, object: 'model', deleted: true });
    expect(await rejection(client.models.retrieve(name))).toMatchObject({ status: 404, code: 'model_not_found' });
    expect(await rejection(client.fineTuning.jobs.create({ model: name, training_file: training }))).toMatchObject({ status: 404, code: 'model_not_found', param: 'model' });
  }, TEST_MS);

  test('45 jobs are listed in pages, newest first; metadata picks some', async () => {
    const made: string[] = [];
    for (let i = 0; i < 45; i++) {
      const job = await client.fineTuning.jobs.create({ model: BASE, training_file: training, metadata: { list: 'paging', part: i < 3 ? 'few' : 'many' } });
      made.push(job.id);
      await client.fineTuning.jobs.cancel(job.id);
    }
    const pages = client.fineTuning.jobs.list({ limit: 20, metadata: { list: 'paging' } });
    const seen = [];
    for await (const job of pages) seen.push(job.id);
    expect(seen).toEqual([...made].reverse());
    const few = await client.fineTuning.jobs.list({ metadata: { part: 'few', list: 'paging' } });
    expect(few.data.map((job) => job.id)).toEqual(made.slice(0, 3).reverse());
    const bare = await client.fineTuning.jobs.create({ model: BASE, training_file: training });
    await client.fineTuning.jobs.cancel(bare.id);
    const response = await server.fetch('/v1/fine_tuning/jobs?metadata=null');
    const without = (await response.json()) as { data: { id: string; metadata: unknown }[] };
    expect(without.data.map((job) => job.id)).toContain(bare.id);
    expect(without.data.every((job) => job.metadata === null)).toBe(true);
  }, 2 * TEST_MS);

  test('cancelling is final, and may be repeated', async () => {
    const job = await client.fineTuning.jobs.create({ model: BASE, training_file: training });
    expect((await client.fineTuning.jobs.cancel(job.id)).status).toBe('cancelled');
    expect((await client.fineTuning.jobs.cancel(job.id)).status).toBe('cancelled');
    expect(await client.fineTuning.jobs.checkpoints.list(job.id)).toMatchObject({ data: [] });
  }, TEST_MS);

  test('cancelling a failed job is a 400 that the client does not repeat', async () => {
    const bad = await server.upload('not json\n');
    const job = await client.fineTuning.jobs.create({ model: BASE, training_file: bad });
    await until('the job to fail', async () => (await client.fineTuning.jobs.retrieve(job.id)).status === 'failed');
    expect((await client.fineTuning.jobs.retrieve(job.id)).error).toMatchObject({ code: 'invalid_training_file', param: 'training_file', message: expect.stringContaining('row 1') });
    const error = await rejection(client.fineTuning.jobs.cancel(job.id, { maxRetries: 2, headers: { 'x-request-id': 'cancel-once' } }));
    expect(error).toBeInstanceOf(BadRequestError);
    expect(error).toMatchObject({ code: 'illegal_transition', requestID: 'cancel-once' });
    await until('the request to be logged', async () => (await server.logLines()).some((line) => line['requestId'] === 'cancel-once'));
    expect((await server.logLines()).filter((line) => line['requestId'] === 'cancel-once')).toHaveLength(1);
  }, TEST_MS);

  test('a file that a live job uses cannot be deleted', async () => {
    const file = await server.upload(trainingRows(10));
    const job = await client.fineTuning.jobs.create({ model: BASE, training_file: file });
    expect(await rejection(client.files.delete(file))).toMatchObject({ status: 400, code: 'file_in_use', message: expect.stringContaining(job.id) });
    await client.fineTuning.jobs.cancel(job.id);
    expect((await client.files.delete(file)).deleted).toBe(true);
  }, TEST_MS);

  test('the same idempotency key makes one job; for another request it is refused', async () => {
    const options = { headers: { 'idempotency-key': 'key-1' } };
    const request = { model: BASE, training_file: training, seed: 1 };
    const first = await client.fineTuning.jobs.create(request, options);
    const again = await client.fineTuning.jobs.create(request, options).withResponse();
    expect(again.data.id).toBe(first.id);
    expect(again.response.headers.get('idempotent-replayed')).toBe('true');
    const other = await rejection(client.fineTuning.jobs.create({ ...request, seed: 2 }, { ...options, maxRetries: 2 }));
    expect(other).toMatchObject({ status: 400, code: 'idempotency_key_reuse' });
    await client.fineTuning.jobs.cancel(first.id);
  }, TEST_MS);

  test("a client's own repetition makes one job", async () => {
    const request = { model: BASE, training_file: training, metadata: { repeated: 'yes' } };
    const first = (await (await server.post('/v1/fine_tuning/jobs', request, { 'x-stainless-retry-count': '0' })).json()) as { id: string };
    const repeated = (await (await server.post('/v1/fine_tuning/jobs', request, { 'x-stainless-retry-count': '1' })).json()) as { id: string };
    const deliberate = (await (await server.post('/v1/fine_tuning/jobs', request, { 'x-stainless-retry-count': '0' })).json()) as { id: string };
    expect(repeated.id).toBe(first.id);
    expect(deliberate.id).not.toBe(first.id);
    for (const id of [first.id, deliberate.id]) await client.fineTuning.jobs.cancel(id);
  }, TEST_MS);
});

test('another key is refused', async () => {
  const stranger = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'another-key', maxRetries: 0 });
  const error = await rejection(stranger.models.list());
  expect(error).toBeInstanceOf(AuthenticationError);
  expect(error).toMatchObject({ code: 'invalid_api_key' });
  expect(error.message).not.toContain('another-key');
}, TEST_MS);

test('base models cannot be deleted', async () => {
  expect(await rejection(client.models.delete(BASE))).toMatchObject({ status: 403, param: 'model' });
}, TEST_MS);
