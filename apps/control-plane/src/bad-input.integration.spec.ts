/**
 * Bad requests against the control plane as a process: each is answered with the one error shape, names the parameter at fault and leaves
 * nothing behind; none is answered with 5xx.
 */
import { connect } from 'node:net';
import { apiErrorSchema } from '@tunefleet/contracts';
import { ControlPlaneProcess, MAX_FILE_BYTES } from './testing/control-plane-process';
import { trainingRows } from './testing/record-worker';

const BASE = 'HuggingFaceTB/SmolLM2-135M-Instruct';
const JOBS = '/v1/fine_tuning/jobs';
const EVALS = '/api/v1/evals';
let server: ControlPlaneProcess;
let training: string;
let evals: string;

beforeAll(async () => {
  server = await ControlPlaneProcess.open();
  training = await server.upload(trainingRows(12));
  evals = await server.upload(trainingRows(3), 'evals');
}, 180_000);
afterAll(() => server.close(), 60_000);

interface Refusal {
  readonly status: number;
  readonly code: string | null;
  readonly param: string | null;
  readonly message: string;
}

/** The answer's error; fails for anything but the one shape. */
async function refusal(response: Response): Promise<Refusal> {
  const text = await response.text();
  expect(response.headers.get('content-type')).toMatch(/^application\/json/);
  expect(response.headers.get('x-request-id')).toMatch(/^req_[0-9a-f]{32}$/);
  const { error } = apiErrorSchema.strict().parse(JSON.parse(text));
  return { status: response.status, code: error.code, param: error.param, message: error.message };
}

async function jobsOnRecord(): Promise<number> {
  return ((await (await server.fetch('/api/v1/jobs?limit=100')).json()) as { data: unknown[] }).data.length;
}

function nested(depth: number): string {
  return `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`;
}

const job = (fields: object) => JSON.stringify({ model: BASE, training_file: training, ...fields });
const evalJob = (fields: object) => JSON.stringify({ model: BASE, file: evals, metric: { type: 'exact_match' }, ...fields });

interface BadBody {
  readonly name: string;
  readonly path: string;
  readonly body: () => string;
  readonly expected: Partial<Refusal>;
}

const badBodies: readonly BadBody[] = [
  { name: 'not JSON', path: JOBS, body: () => '{"model":', expected: { status: 400, code: 'invalid_json', param: null } },
  { name: 'no body', path: JOBS, body: () => '', expected: { status: 400, code: 'invalid_type', param: null } },
  { name: 'a list', path: JOBS, body: () => '[]', expected: { status: 400, code: 'invalid_type', param: null } },
  { name: 'null', path: JOBS, body: () => 'null', expected: { status: 400, code: 'invalid_type' } },
  { name: 'without a model', path: JOBS, body: () => '{}', expected: { status: 400, code: 'missing_required_parameter', param: 'model' } },
  { name: 'a model that is null', path: JOBS, body: () => job({ model: null }), expected: { status: 400, code: 'missing_required_parameter', param: 'model' } },
  { name: 'a model that is a number', path: JOBS, body: () => job({ model: 7 }), expected: { status: 400, code: 'invalid_type', param: 'model' } },
  { name: 'a model with a space', path: JOBS, body: () => job({ model: 'a model' }), expected: { status: 400, code: 'model_not_found', param: 'model' } },
  { name: 'a tuned model that is not there', path: JOBS, body: () => job({ model: 'ft:x:y:z:1' }), expected: { status: 404, code: 'model_not_found', param: 'model' } },
  { name: 'an unknown field', path: JOBS, body: () => job({ modle: 'x' }), expected: { status: 400, code: 'unknown_parameter', param: 'modle' } },
  { name: 'an unknown hyperparameter', path: JOBS, body: () => job({ hyperparameters: { epochs: 1 } }), expected: { status: 400, code: 'unknown_parameter', param: 'hyperparameters.epochs' } },
  { name: 'too many epochs', path: JOBS, body: () => job({ hyperparameters: { n_epochs: 51 } }), expected: { status: 400, code: 'invalid_value', param: 'hyperparameters.n_epochs', message: expect.stringContaining('50') as unknown as string } },
  { name: 'half an epoch', path: JOBS, body: () => job({ method: { type: 'supervised', supervised: { hyperparameters: { n_epochs: 0.5 } } } }), expected: { status: 400, param: 'method.supervised.hyperparameters.n_epochs' } },
  { name: 'hyperparameters that contradict each other', path: JOBS, body: () => job({ hyperparameters: { n_epochs: 1 }, method: { supervised: { hyperparameters: { n_epochs: 2 } } } }), expected: { status: 400, code: 'conflicting_hyperparameters' } },
  { name: 'both learning rates', path: JOBS, body: () => job({ hyperparameters: { learning_rate: 0.1, learning_rate_multiplier: 2 } }), expected: { status: 400, code: 'conflicting_hyperparameters' } },
  { name: 'reinforcement', path: JOBS, body: () => job({ method: { type: 'reinforcement', reinforcement: {} } }), expected: { status: 400, code: 'unsupported_method', param: 'method.type' } },
  { name: 'a beta above 2', path: JOBS, body: () => job({ method: { type: 'dpo', dpo: { hyperparameters: { beta: 2.5 } } } }), expected: { status: 400, code: 'invalid_value', param: 'method.dpo.hyperparameters.beta', message: expect.stringContaining('2') as unknown as string } },
  { name: 'a beta of 0', path: JOBS, body: () => job({ method: { type: 'dpo', dpo: { hyperparameters: { beta: 0 } } } }), expected: { status: 400, param: 'method.dpo.hyperparameters.beta' } },
  { name: 'a beta without preferences', path: JOBS, body: () => job({ method: { type: 'supervised', supervised: { hyperparameters: { beta: 0.1 } } } }), expected: { status: 400, code: 'unknown_parameter', param: 'method.supervised.hyperparameters.beta' } },
  { name: "another method's fields", path: JOBS, body: () => job({ method: { type: 'dpo', supervised: {} } }), expected: { status: 400, code: 'invalid_value', param: 'method.supervised' } },
  { name: 'an integration', path: JOBS, body: () => job({ integrations: [{ type: 'wandb', wandb: { project: 'p' } }] }), expected: { status: 400, code: 'unsupported_integration', param: 'integrations' } },
  { name: 'a suffix with a colon', path: JOBS, body: () => job({ suffix: 'a:b' }), expected: { status: 400, code: 'invalid_value', param: 'suffix' } },
  { name: 'a seed below zero', path: JOBS, body: () => job({ seed: -1 }), expected: { status: 400, code: 'invalid_value', param: 'seed' } },
  { name: 'a file that is not there', path: JOBS, body: () => job({ training_file: 'file-none' }), expected: { status: 400, code: 'file_not_found', param: 'training_file' } },
  { name: 'a file for another purpose', path: JOBS, body: () => job({ training_file: evals }), expected: { status: 400, code: 'invalid_file_purpose', param: 'training_file' } },
  { name: 'a validation file that is not there', path: JOBS, body: () => job({ validation_file: 'file-none' }), expected: { status: 400, code: 'file_not_found', param: 'validation_file' } },
  { name: 'an unknown tuner', path: JOBS, body: () => job({ tuner: { kind: 'magic' } }), expected: { status: 400, code: 'invalid_tuner', param: 'tuner.kind' } },
  { name: 'a rank of zero', path: JOBS, body: () => job({ tuner: { kind: 'lora', r: 0 } }), expected: { status: 400, param: 'tuner.r' } },
  { name: '17 pairs of metadata', path: JOBS, body: () => job({ metadata: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`k${i}`, 'v'])) }), expected: { status: 400, param: 'metadata' } },
  { name: 'metadata that is not text', path: JOBS, body: () => job({ metadata: { a: 1 } }), expected: { status: 400, code: 'invalid_type', param: 'metadata.a' } },
  { name: 'a NUL character', path: JOBS, body: () => job({ metadata: { a: '\u0000' } }), expected: { status: 400, code: 'invalid_value' } },
  { name: 'half of a surrogate pair', path: JOBS, body: () => `{"model":"${BASE}","training_file":"${training}","metadata":{"a":"\\ud800"}}`, expected: { status: 400, code: 'invalid_value' } },
  { name: 'a field called __proto__', path: JOBS, body: () => '{"__proto__":{"model":"x"}}', expected: { status: 400, code: 'invalid_value' } },
  { name: '100 000 levels', path: JOBS, body: () => nested(100_000), expected: { status: 400, code: 'invalid_value' } },
  { name: 'two megabytes', path: JOBS, body: () => job({ metadata: { a: 'x'.repeat(2_000_000) } }), expected: { status: 413, code: 'request_too_large' } },
  { name: 'an eval without a metric', path: EVALS, body: () => JSON.stringify({ model: BASE, file: evals }), expected: { status: 400, code: 'missing_required_parameter', param: 'metric' } },
  { name: 'an eval with an unknown metric', path: EVALS, body: () => evalJob({ metric: { type: 'vibes' } }), expected: { status: 400, code: 'invalid_value', param: 'metric.type' } },
  { name: 'an eval with one label', path: EVALS, body: () => evalJob({ metric: { type: 'label_likelihood', labels: ['a'] } }), expected: { status: 400, param: 'metric.labels' } },
  { name: 'an eval with a label twice', path: EVALS, body: () => evalJob({ metric: { type: 'label_likelihood', labels: ['a', 'a'] } }), expected: { status: 400, code: 'invalid_value', param: 'metric.labels' } },
  { name: 'an eval of a model against itself', path: EVALS, body: () => evalJob({ compare_to: BASE }), expected: { status: 400, code: 'invalid_value', param: 'compare_to' } },
  { name: 'an eval across bases', path: EVALS, body: () => evalJob({ compare_to: ['other/model'] }), expected: { status: 400, code: 'different_bases', param: 'compare_to' } },
  { name: 'an eval of a file that is not there', path: EVALS, body: () => evalJob({ file: 'file-none' }), expected: { status: 400, code: 'file_not_found', param: 'file' } },
];

test.each(badBodies)('$path refuses $name', async ({ path, body, expected }) => {
  const before = await jobsOnRecord();
  expect(await refusal(await server.post(path, body()))).toMatchObject(expected);
  expect(await jobsOnRecord()).toBe(before);
});

const badUrls: readonly (readonly [string, string, Partial<Refusal>])[] = [
  ['GET', '/v1/nothing', { status: 404, code: 'unknown_url' }],
  ['PATCH', '/v1/files', { status: 404, code: 'unknown_url' }],
  ['GET', '/v1/files/%zz', { status: 400 }],
  ['GET', '/v1/files/a%00b', { status: 400, code: 'invalid_value' }],
  ['GET', '/v1/files/file-none', { status: 404, code: 'file_not_found' }],
  ['GET', '/v1/files/file-none/content', { status: 404, code: 'file_not_found' }],
  ['DELETE', '/v1/files/file-none', { status: 404, code: 'file_not_found' }],
  ['GET', '/v1/files?limit=0', { status: 400, param: 'limit' }],
  ['GET', '/v1/files?limit=10001', { status: 400, param: 'limit' }],
  ['GET', '/v1/files?limit=1&limit=2', { status: 400, param: 'limit' }],
  ['GET', '/v1/files?order=up', { status: 400, param: 'order' }],
  ['GET', '/v1/files?after=file-none', { status: 404, param: 'after' }],
  ['GET', '/v1/files?colour=red', { status: 400, code: 'unknown_parameter', param: 'colour' }],
  ['GET', `${JOBS}?limit=101`, { status: 400, param: 'limit' }],
  ['GET', `${JOBS}?metadata=x`, { status: 400, param: 'metadata' }],
  ['GET', `${JOBS}?after=ftjob-none`, { status: 404, param: 'after' }],
  ['GET', `${JOBS}/ftjob-none`, { status: 404, code: 'job_not_found' }],
  ['POST', `${JOBS}/ftjob-none/cancel`, { status: 404, code: 'job_not_found' }],
  ['GET', `${JOBS}/ftjob-none/events`, { status: 404, code: 'job_not_found' }],
  ['GET', `${JOBS}/ftjob-none/checkpoints`, { status: 404, code: 'job_not_found' }],
  ['GET', '/v1/models/no/such/model', { status: 404, code: 'model_not_found', param: 'model' }],
  ['GET', '/api/v1/jobs/none', { status: 404, code: 'job_not_found' }],
  ['GET', '/api/v1/jobs/none/events/stream', { status: 404, code: 'job_not_found' }],
  ['GET', '/api/v1/jobs?kind=magic', { status: 400, param: 'kind' }],
  ['GET', '/api/v1/evals/none', { status: 404, code: 'job_not_found' }],
  ['GET', '/api/v1/evals/none/items', { status: 404, code: 'job_not_found' }],
  ['GET', '/api/v1/adapters/none', { status: 404 }],
  ['GET', '/api/v1/checkpoints/none/files/x', { status: 404 }],
  ['POST', '/api/v1/workers/none/cordon', { status: 404 }],
];

test.each(badUrls)('%s %s', async (method, path, expected) => {
  expect(await refusal(await server.fetch(path, { method }))).toMatchObject(expected);
});

describe('uploads', () => {
  async function upload(...parts: readonly (readonly [name: string, value: string | Blob])[]): Promise<Refusal> {
    const form = new FormData();
    for (const [name, value] of parts) {
      if (typeof value === 'string') form.append(name, value);
      else form.append(name, value, 'a.jsonl');
    }
    return refusal(await server.fetch('/v1/files', { method: 'POST', body: form }));
  }
  const small = new Blob(['{}\n']);

  test('without a file, a purpose, or a known field', async () => {
    expect(await upload(['purpose', 'fine-tune'])).toMatchObject({ status: 400, code: 'missing_required_parameter', param: 'file' });
    expect(await upload(['file', small])).toMatchObject({ status: 400, code: 'missing_required_parameter', param: 'purpose' });
    expect(await upload(['file', small], ['purpose', 'fun'])).toMatchObject({ status: 400, code: 'invalid_value', param: 'purpose' });
    expect(await upload(['purpose', 'fine-tune'], ['colour', 'red'], ['file', small])).toMatchObject({ status: 400, code: 'unknown_parameter', param: 'colour' });
    expect(await upload(['purpose', 'fine-tune'], ['document', small])).toMatchObject({ status: 400, code: 'unknown_parameter', param: 'document' });
    expect(await upload(['purpose', 'fine-tune'], ['purpose', 'evals'], ['file', small])).toMatchObject({ status: 400, param: 'purpose' });
    expect(await upload(['purpose', 'fine-tune'], ['file', small], ['file', small])).toMatchObject({ status: 400, code: 'invalid_form' });
    expect(await upload(['purpose', 'fine-tune'], ['expires_after[anchor]', 'created_at'], ['expires_after[seconds]', '5'], ['file', small])).toMatchObject({ status: 400, param: 'expires_after.seconds' });
  });

  test('beyond the size limit, whether announced or not', async () => {
    const large = 'x'.repeat(MAX_FILE_BYTES + 1);
    expect(await upload(['purpose', 'fine-tune'], ['file', new Blob([large])])).toMatchObject({ status: 400, code: 'file_too_large', param: 'file', message: expect.stringContaining(String(MAX_FILE_BYTES)) });
    expect(await upload(['purpose', 'fine-tune'], ['file', new Blob(['x'.repeat(MAX_FILE_BYTES + 100_000)])])).toMatchObject({ code: 'file_too_large' });
    const exact = new FormData();
    exact.append('purpose', 'fine-tune');
    exact.append('file', new Blob(['x'.repeat(MAX_FILE_BYTES)]), 'exact.jsonl');
    expect((await server.fetch('/v1/files', { method: 'POST', body: exact })).status).toBe(200);
  });

  test('that are no form, or a broken one', async () => {
    expect(await refusal(await server.post('/v1/files', { purpose: 'fine-tune' }))).toMatchObject({ status: 400, code: 'invalid_content_type' });
    const broken = (body: string) => server.fetch('/v1/files', { method: 'POST', body, headers: { 'content-type': 'multipart/form-data; boundary=b' } });
    expect(await refusal(await broken('no form at all'))).toMatchObject({ status: 400, code: 'invalid_form' });
    expect(await refusal(await broken('--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\ncut off'))).toMatchObject({ status: 400, code: 'invalid_form' });
    const without = await server.fetch('/v1/files', { method: 'POST', body: 'x', headers: { 'content-type': 'multipart/form-data' } });
    expect(await refusal(without)).toMatchObject({ status: 400 });
  });

  test('an upload that is given up leaves no file and no half blob', async () => {
    const before = await server.store.records.listFiles((await server.store.records.ensureTeam('tests')).id, { limit: 100, order: 'desc' });
    const giveUp = new AbortController();
    const body = new ReadableStream<Uint8Array>({
      pull: (controller) => {
        controller.enqueue(Buffer.from('--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nsome bytes'));
        setTimeout(() => giveUp.abort(), 50);
        return new Promise(() => undefined);
      },
    });
    await expect(
      server.fetch('/v1/files', { method: 'POST', body, headers: { 'content-type': 'multipart/form-data; boundary=b' }, signal: giveUp.signal, duplex: 'half' } as RequestInit),
    ).rejects.toThrow();
    const after = await server.store.records.listFiles((await server.store.records.ensureTeam('tests')).id, { limit: 100, order: 'desc' });
    expect(after.items.map((file) => file.id)).toEqual(before.items.map((file) => file.id));
  });
});

test('other content types', async () => {
  const response = await server.fetch(JOBS, { method: 'POST', body: '<xml/>', headers: { 'content-type': 'application/xml' } });
  expect(await refusal(response)).toMatchObject({ status: 415, code: 'unsupported_media_type' });
});

test('a bad idempotency key, and a bad position in an event stream', async () => {
  expect(await refusal(await server.post(JOBS, job({}), { 'idempotency-key': 'x'.repeat(256) }))).toMatchObject({ status: 400, param: 'Idempotency-Key' });
  const created = (await (await server.post(JOBS, job({}))).json()) as { id: string };
  expect(await refusal(await server.fetch(`/api/v1/jobs/${created.id}/events/stream`, { headers: { 'last-event-id': 'x' } }))).toMatchObject({ status: 400, param: 'Last-Event-ID' });
  await server.post(`${JOBS}/${created.id}/cancel`, '');
});

test.each([['no key', {}], ['an empty key', { authorization: 'Bearer ' }], ['another scheme', { authorization: 'Basic a2V5' }], ['a longer key', { authorization: 'Bearer key-of-the-api-tests2' }]])(
  '%s is refused everywhere but at the probes and the documentation',
  async (_name, headers: Record<string, string>) => {
    for (const path of ['/v1/files', '/v1/models', JOBS, EVALS, '/api/v1/jobs', '/api/v1/workers', '/api/v1/status', '/api/v1/adapters']) {
      expect(await refusal(await fetch(server.url + path, { headers }))).toMatchObject({ status: 401 });
    }
    for (const path of ['/healthz', '/readyz', '/api/docs', '/api/openapi.json']) expect((await fetch(server.url + path, { headers })).status).toBe(200);
  },
);

test('what is not HTTP is answered as JSON too', async () => {
  const { hostname, port } = new URL(server.url);
  const answer = await new Promise<string>((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => socket.write('HELLO\r\n\r\n'));
    let text = '';
    socket.on('data', (chunk) => (text += chunk.toString()));
    socket.on('close', () => resolve(text));
    socket.on('error', reject);
  });
  expect(answer).toMatch(/^HTTP\/1.1 400 /);
  expect(apiErrorSchema.parse(JSON.parse(answer.slice(answer.indexOf('\r\n\r\n')))).error.type).toBe('invalid_request_error');
});

test('nothing of all this was an error of the server, and no secret is in its log', async () => {
  const lines = await server.logLines();
  expect(lines.filter((line) => Number(line['status'] ?? 0) >= 500 || line['msg'] === 'request failed')).toEqual([]);
  expect(await server.log()).not.toMatch(/key-of-the-api-tests|worker-token-of-the-api-tests/);
});
