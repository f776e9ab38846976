/**
 * The native API of the control plane as a process: evals, the live stream, metrics, checkpoint and adapter files, workers, status.
 * A run's middle is played through the record (`RecordWorker`).
 */
import {
  adapterListSchema,
  checkpointListSchema,
  evalJobListSchema,
  evalJobSchema,
  jobDetailSchema,
  jobListSchema,
  metricListSchema,
  statusSchema,
  workerListSchema,
  type EvalJob,
  type JobStreamMessage,
} from '@tunefleet/contracts';
import { TunefleetClient } from '@tunefleet/client-sdk';
import { sha256Hex } from '@tunefleet/foundation';
import { until } from './fleet/testing/fleet-harness';
import { API_KEY, ControlPlaneProcess } from './testing/control-plane-process';
import { FINE_TUNE_RESULT, RecordWorker, trainingRows } from './testing/record-worker';

const BASE = 'HuggingFaceTB/SmolLM2-135M-Instruct';
const TEST_MS = 60_000;
let server: ControlPlaneProcess;
let client: TunefleetClient;

beforeAll(async () => {
  server = await ControlPlaneProcess.open();
  client = new TunefleetClient({ baseUrl: server.url, apiKey: API_KEY });
}, 180_000);
afterAll(() => server.close(), 60_000);

async function get(path: string): Promise<unknown> {
  const response = await server.fetch(path);
  expect(response.status).toBe(200);
  return response.json();
}

async function createFineTune(): Promise<string> {
  const file = await server.upload(trainingRows(12));
  const response = await server.post('/v1/fine_tuning/jobs', { model: BASE, training_file: file, tuner: { kind: 'lora', r: 4 }, priority: 3 });
  expect(response.status).toBe(200);
  return ((await response.json()) as { id: string }).id;
}

async function createEval(): Promise<EvalJob> {
  const file = await server.upload(trainingRows(3), 'evals');
  const response = await server.post('/api/v1/evals', { model: BASE, file, metric: { type: 'exact_match', max_tokens: 8 }, metadata: { a: 'b' } });
  expect(response.status).toBe(201);
  return evalJobSchema.parse(await response.json());
}

describe('a fine-tune job', () => {
  test('is followed live; its metrics, checkpoints and adapter are there to read', async () => {
    const id = await createFineTune();
    const messages: JobStreamMessage[] = [];
    const watching = (async () => {
      for await (const message of client.jobs.stream(id)) messages.push(message);
    })();
    const worker = new RecordWorker(server.store.fleet, server.blobs);
    const run = await worker.take(id);
    await worker.say(run, { type: 'metrics', step: 1, values: { train_loss: 2, learning_rate: 0.1 } });
    await until('the first metrics to arrive', () => messages.some((message) => message.type === 'metrics'));
    // The same step once more: a later measurement of it is news.
    await worker.say(run, { type: 'metrics', step: 1, values: { valid_loss: 3 } }, { type: 'metrics', step: 2, values: { train_loss: 1 } });
    const state = await worker.store('state.bin', 'the state');
    await worker.say(run, { type: 'checkpoint', step: 2, artifacts: [state], metrics: { train_loss: 1 } });
    await worker.complete(run, {
      result: FINE_TUNE_RESULT,
      artifacts: [await worker.store('adapter_config.json', '{"r":4}')],
      adapter: { name: run.job.spec['fineTunedModel'] as string, baseModel: BASE, baseRevision: 'r1', tunerKind: 'lora' },
    });
    await watching;
    await worker.leave();

    expect(messages.at(-1)).toEqual({ type: 'end', data: { status: 'succeeded' } });
    const metrics = messages.flatMap((message) => (message.type === 'metrics' ? [message.data] : []));
    expect(metrics[0]).toEqual({ step: 1, values: { train_loss: 2, learning_rate: 0.1 } });
    expect(metrics.slice(-2)).toEqual([
      { step: 1, values: { train_loss: 2, learning_rate: 0.1, valid_loss: 3 } },
      { step: 2, values: { train_loss: 1 } },
    ]);
    const events = messages.flatMap((message) => (message.type === 'event' ? [message.data.id] : []));
    expect(events).toEqual([...new Set(events)].sort());
    const states = messages.flatMap((message) => (message.type === 'job' ? [message.data.status] : []));
    expect([...new Set(states)].at(-1)).toBe('succeeded');

    expect(metricListSchema.parse(await get(`/api/v1/jobs/${id}/metrics?limit=1`))).toMatchObject({ data: [{ step: 1 }, { step: 1 }, { step: 1 }], has_more: true });
    expect(metricListSchema.parse(await get(`/api/v1/jobs/${id}/metrics?since_step=1`))).toEqual({ object: 'list', data: [{ name: 'train_loss', step: 2, value: 1 }], has_more: false });
    expect(metricListSchema.parse(await get(`/api/v1/jobs/${id}/metrics?name=valid_loss`)).data).toEqual([{ name: 'valid_loss', step: 1, value: 3 }]);

    const detail = jobDetailSchema.parse(await get(`/api/v1/jobs/${id}`));
    expect(detail).toMatchObject({ kind: 'fine-tune', status: 'succeeded', priority: 3, attempts: [{ epoch: 1, outcome: 'succeeded', worker_id: worker.id }] });
    expect(detail.worker_spec).toMatchObject({ tuner: { r: 4 } });
    const checkpoints = checkpointListSchema.parse(await get(`/api/v1/jobs/${id}/checkpoints`));
    expect(checkpoints.data).toMatchObject([{ step: 2, job_id: id, files: [{ name: 'state.bin', sha256: sha256Hex('the state') }] }]);
    expect(await (await server.fetch(`/api/v1/checkpoints/${checkpoints.first_id ?? ''}/files/state.bin`)).text()).toBe('the state');
    expect((await server.fetch(`/api/v1/checkpoints/${checkpoints.first_id ?? ''}/files/other`)).status).toBe(404);

    const adapters = adapterListSchema.parse(await get('/api/v1/adapters'));
    const adapter = adapters.data.find((candidate) => candidate.job_id === id);
    expect(adapter).toMatchObject({ id: detail.adapter_id, name: run.job.spec['fineTunedModel'], tuner: 'lora' });
    const file = await server.fetch(`/api/v1/adapters/${adapter?.id ?? ''}/files/adapter_config.json`);
    expect(file.headers.get('content-length')).toBe('7');
    expect(await file.text()).toBe('{"r":4}');
    const head = await server.fetch(`/api/v1/adapters/${adapter?.id ?? ''}/files/adapter_config.json`, { method: 'HEAD' });
    expect([head.status, head.headers.get('content-length'), await head.text()]).toEqual([200, '7', '']);
  }, TEST_MS);

  test('an ended one is told whole, from where the reader left off', async () => {
    const id = await createFineTune();
    await server.post(`/v1/fine_tuning/jobs/${id}/cancel`, '');
    const whole = await (await server.fetch(`/api/v1/jobs/${id}/events/stream`)).text();
    const ids = [...whole.matchAll(/^event: event\nid: (.+)$/gm)].map(([, eventId]) => eventId ?? '');
    expect(whole).toMatch(/event: end\nid: .+\ndata: {"status":"cancelled"}\n\n$/);
    expect(ids.length).toBeGreaterThanOrEqual(2);
    const rest = await (await server.fetch(`/api/v1/jobs/${id}/events/stream`, { headers: { 'last-event-id': ids[0] ?? '' } })).text();
    expect([...rest.matchAll(/^event: event\nid: (.+)$/gm)].map(([, eventId]) => eventId)).toEqual(ids.slice(1));
  }, TEST_MS);
});

describe('an eval job', () => {
  test('goes from creation to its answers', async () => {
    const created = await createEval();
    expect(created).toMatchObject({ object: 'eval_job', model: BASE, base_model: BASE, compare_to: [], metadata: { a: 'b' }, result: null, result_files: [], error: null });
    expect((await server.fetch(`/api/v1/evals/${created.id}/items`)).status).toBe(400);
    const worker = new RecordWorker(server.store.fleet, server.blobs);
    const run = await worker.take(created.id);
    const items = '{"row":1,"reference":"0","outputs":[]}\n';
    const result = { metric: 'exact_match', candidates: [{ model: BASE, n: 1, correct: 1, accuracy: 1, interval: [0.2, 1] }], comparison: null, seconds: 1, peakRssBytes: 1 };
    await worker.complete(run, { result, resultFiles: [{ filename: 'items.jsonl', ...(await worker.store('items.jsonl', items)) }] });
    await worker.leave();

    const done = evalJobSchema.parse(await get(`/api/v1/evals/${created.id}`));
    expect(done).toMatchObject({ status: 'succeeded', result: { candidates: [{ accuracy: 1 }] } });
    const response = await server.fetch(`/api/v1/evals/${created.id}/items`);
    expect(response.headers.get('content-type')).toBe('application/x-ndjson');
    expect(await response.text()).toBe(items);
    const part = await server.fetch(`/api/v1/evals/${created.id}/items`, { headers: { range: 'bytes=1-5' } });
    expect([part.status, part.headers.get('content-range'), await part.text()]).toEqual([206, `bytes 1-5/${items.length}`, items.slice(1, 6)]);
  }, TEST_MS);

  test('is listed and cancelled; it is no fine-tune job', async () => {
    const made = [await createEval(), await createEval(), await createEval()].map((job) => job.id).reverse();
    const first = evalJobListSchema.parse(await get('/api/v1/evals?limit=2'));
    expect(first).toMatchObject({ has_more: true, first_id: made[0], last_id: made[1] });
    expect(evalJobListSchema.parse(await get(`/api/v1/evals?limit=1&after=${made[1]}`)).data[0]?.id).toBe(made[2]);
    for (const id of made) {
      const response = await server.post(`/api/v1/evals/${id}/cancel`, '');
      expect(evalJobSchema.parse(await response.json()).status).toBe('cancelled');
      expect((await server.fetch(`/v1/fine_tuning/jobs/${id}`)).status).toBe(404);
    }
    expect(evalJobListSchema.parse(await get('/api/v1/evals?status=cancelled')).data.map((job) => job.id)).toEqual(made);
    expect(jobListSchema.parse(await get('/api/v1/jobs?kind=eval&status=cancelled&limit=1'))).toMatchObject({ data: [{ id: made[0], kind: 'eval' }], has_more: true });
  }, TEST_MS);
});

test('the use of a day holds the time of its jobs', async () => {
  const id = await createFineTune();
  const worker = new RecordWorker(server.store.fleet, server.blobs);
  const from = new Date().toISOString().slice(0, 10);
  await worker.complete(await worker.take(id), { result: FINE_TUNE_RESULT, artifacts: [] });
  await worker.leave();
  const report = await client.usage.report({ from });
  expect(report.data.length).toBeGreaterThan(0);
  for (const day of report.data) {
    expect(day.gpu_seconds).toBeGreaterThan(0);
    expect(day.wasted_gpu_seconds).toBeLessThanOrEqual(day.gpu_seconds);
  }
  expect((await client.usage.report({ team: 'nobody' })).data).toEqual([]);
  expect((await client.usage.report()).from).not.toBe(from);
  await expect(client.usage.report({ from: '2026-02-01', to: '2026-01-01' })).rejects.toMatchObject({ status: 400, param: 'to', message: expect.stringContaining('2026-01-01 is before 2026-02-01') as string });
  await expect(client.usage.report({ from: 'yesterday' })).rejects.toMatchObject({ status: 400, param: 'from' });
  await expect(client.usage.report({ from: '2020-01-01', to: '2026-01-01' })).rejects.toMatchObject({ status: 400, param: 'from' });
}, TEST_MS);

test('a cordoned worker is shown as such', async () => {
  const id = await createFineTune();
  const worker = new RecordWorker(server.store.fleet, server.blobs);
  await worker.take(id);
  expect(workerListSchema.parse(await get('/api/v1/workers')).data.find((one) => one.id === worker.id)).toMatchObject({ cordoned: false, status: 'online', device: { kind: 'cpu' } });
  expect(await (await server.post(`/api/v1/workers/${worker.id}/cordon`, '')).json()).toMatchObject({ id: worker.id, cordoned: true });
  expect(statusSchema.parse(await get('/api/v1/status'))).toMatchObject({ queue: { backend: 'postgres' }, jobs: { running: 1 }, workers: { cordoned: 1 } });
  expect(await (await server.post(`/api/v1/workers/${worker.id}/uncordon`, '')).json()).toMatchObject({ cordoned: false });
  await server.post(`/api/v1/jobs/${id}/cancel`, '');
  await worker.leave();
}, TEST_MS);

test('the documentation names every endpoint and needs nothing from elsewhere', async () => {
  const document = (await get('/api/openapi.json')) as { openapi: string; paths: Record<string, object>; components: { schemas: Record<string, unknown> } };
  expect(document.openapi).toBe('3.1.0');
  expect(Object.keys(document.paths)).toEqual(expect.arrayContaining(['/v1/files', '/v1/fine_tuning/jobs/{id}/cancel', '/v1/models/{name}', '/api/v1/evals', '/api/v1/jobs/{id}/events/stream', '/healthz']));
  const references = [...JSON.stringify(document).matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g)].map(([, name]) => name);
  expect(Object.keys(document.components.schemas)).toEqual(expect.arrayContaining([...new Set(references)]));
  const page = await (await server.fetch('/api/docs')).text();
  expect(page).toContain('Tunefleet API');
  expect(page).not.toMatch(/(?:src|href)=["']?(?:https?:)?\/\//);
  const scripts = [...page.matchAll(/(?:src|href)="(\.\/docs\/[^"]+)"/g)].map(([, path]) => path ?? '');
  expect(scripts.length).toBeGreaterThan(2);
  for (const script of scripts) expect((await server.fetch(`/api/${script.slice(2)}`)).status).toBe(200);
}, TEST_MS);
