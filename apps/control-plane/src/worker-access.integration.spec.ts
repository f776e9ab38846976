/** Join tokens and revocation through the API of the control plane as a process, and how it starts and refuses to. */
import { TunefleetClient } from '@tunefleet/client-sdk';
import { RawWorker } from './fleet/testing/raw-worker';
import { API_KEY, ControlPlaneProcess } from './testing/control-plane-process';

const TEST_MS = 60_000;
let server: ControlPlaneProcess;
let client: TunefleetClient;
let workers: RawWorker[] = [];

beforeAll(async () => {
  server = await ControlPlaneProcess.open();
  client = new TunefleetClient({ baseUrl: server.url, apiKey: API_KEY });
}, 180_000);
afterAll(() => server.close(), 60_000);
afterEach(() => {
  for (const worker of workers) worker.close();
  workers = [];
});

function raw(): RawWorker {
  const worker = new RawWorker(server.grpcAddress);
  workers.push(worker);
  return worker;
}

test(
  'a token is shown once, lets in as many as it says, and ends when it is revoked',
  async () => {
    const made = await client.workers.tokens.create({ note: 'rack 4', uses: 2, name: 'raw*', labels: { zone: 'b' } });
    expect(made).toMatchObject({ object: 'worker_token', state: 'usable', uses: 0, max_uses: 2, name: 'raw*', labels: { zone: 'b' }, note: 'rack 4' });
    expect(Number(made.expires_at) - made.created_at).toBe(86_400);
    expect(await raw().join(made.token)).toMatchObject({ status: 'OK' });
    expect(await raw().join(made.token, { name: 'other' })).toMatchObject({ status: 'PERMISSION_DENIED' });
    const { data } = await client.workers.tokens.list();
    expect(data.find(({ id }) => id === made.id)).toMatchObject({ uses: 1, state: 'usable' });
    const secret = made.token.split('.')[1] ?? '';
    expect(secret).toHaveLength(43);
    expect(JSON.stringify(data)).not.toContain(secret);
    expect(await client.workers.tokens.revoke(made.id)).toMatchObject({ state: 'revoked' });
    expect(await raw().join(made.token)).toMatchObject({ status: 'PERMISSION_DENIED' });
    expect(await server.log()).not.toContain(secret);
  },
  TEST_MS,
);

test('one use and one day unless said otherwise; no bounds have to be asked for by name', async () => {
  expect(await client.workers.tokens.create()).toMatchObject({ max_uses: 1, expires_at: expect.any(Number), name: null, labels: null });
  expect(await client.workers.tokens.create({ uses: 'any', expires_in_seconds: 'never' })).toMatchObject({ max_uses: null, expires_at: null });
  // A null is no wish for more.
  expect(await (await server.post('/api/v1/workers/tokens', { uses: null, expires_in_seconds: null })).json()).toMatchObject({ max_uses: 1, expires_at: expect.any(Number) });
});

test.each([
  { uses: 0 },
  { uses: 10_001 },
  { expires_in_seconds: 0 },
  { name: 'a b' },
  { labels: { 'bad name': 'x' } },
  { labels: { zone: 'x'.repeat(64) } },
  { labels: Object.fromEntries(Array.from({ length: 33 }, (_, i) => [`l${i}`, 'x'])) },
  { note: 'x'.repeat(401) },
  { token: 'my-own' },
])('%j is refused', async (body) => {
  expect((await server.post('/api/v1/workers/tokens', body)).status).toBe(400);
});

test('what is not there is not found, and nothing goes without the API key', async () => {
  for (const path of ['/api/v1/workers/tokens/none/revoke', '/api/v1/workers/none/revoke']) {
    expect((await server.post(path, '')).status).toBe(404);
    expect((await fetch(server.url + path, { method: 'POST' })).status).toBe(401);
  }
  expect((await fetch(`${server.url}/api/v1/workers/tokens`)).status).toBe(401);
});

test(
  'a revoked worker is off at once and stays in the list as such',
  async () => {
    const worker = raw();
    const { token } = await client.workers.tokens.create();
    expect(await worker.join(token)).toMatchObject({ status: 'OK' });
    worker.open();
    await worker.hear('welcome');
    expect(await client.workers.revoke(worker.id, 'lost')).toEqual({ id: worker.id, object: 'worker.revoked', revoked: true, released_jobs: 0 });
    expect(await worker.hear('goodbye')).toMatchObject({ reconnectAfterMs: 0 });
    worker.open();
    expect(await worker.ended()).toMatchObject({ status: 'PERMISSION_DENIED' });
    expect((await client.workers.list()).data.find(({ id }) => id === worker.id)).toMatchObject({ status: 'offline', cordoned: true, cordon_reason: 'revoked: lost' });
    // Uncordoning is not forgiving.
    await client.workers.uncordon(worker.id);
    worker.open();
    expect(await worker.ended()).toMatchObject({ status: 'PERMISSION_DENIED' });
  },
  TEST_MS,
);

test(
  'it does not serve workers in plain text where others can listen, unless it is told to',
  async () => {
    const refused = await server.startAnother({ TUNEFLEET_GRPC_HOST: '0.0.0.0' });
    expect(refused).toMatchObject({ code: 1, output: expect.stringMatching(/0\.0\.0\.0 in plain text.*TUNEFLEET_GRPC_PLAINTEXT=on/) });
    expect((await server.startAnother({ TUNEFLEET_GRPC_TLS_CERT: 'none.pem', TUNEFLEET_GRPC_TLS_KEY: 'none.key' })).output).toMatch(/TUNEFLEET_GRPC_TLS_CERT: .*none\.pem/);
  },
  TEST_MS,
);
