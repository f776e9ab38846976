/** How the control plane's process ends, and that it begins again where it was. */
import { connect } from 'node:net';
import { API_KEY, ControlPlaneProcess } from './testing/control-plane-process';
import { trainingRows } from './testing/record-worker';

const TEST_MS = 60_000;
/** What the supervisor allows. */
const GRACE_MS = 15_000;
let server: ControlPlaneProcess;

beforeAll(async () => {
  server = await ControlPlaneProcess.open();
}, 180_000);
afterAll(() => server.close(), 60_000);

async function submit(): Promise<string> {
  const file = await server.upload(trainingRows(12));
  const response = await server.post('/v1/fine_tuning/jobs', { model: 'HuggingFaceTB/SmolLM2-135M-Instruct', training_file: file });
  return ((await response.json()) as { id: string }).id;
}

test('SIGTERM ends open streams and idle connections, then the process with 0', async () => {
  const id = await submit();
  const stream = await server.fetch(`/api/v1/jobs/${id}/events/stream`);
  const reader = stream.body?.getReader();
  await reader?.read();
  const { hostname, port } = new URL(server.url);
  const idle = connect(Number(port), hostname);
  await new Promise((resolve) => idle.once('connect', resolve));
  const closed = new Promise((resolve) => idle.once('close', resolve));

  const startedAt = performance.now();
  server.signal('SIGTERM');
  while (reader !== undefined && !(await reader.read()).done);
  await closed;
  expect(await server.exited).toEqual({ code: 0, signal: null });
  expect(performance.now() - startedAt).toBeLessThan(GRACE_MS);
  const lines = await server.logLines();
  expect(lines.filter((line) => Number(line['level']) >= 40 && line['msg'] !== 'using a model from its package mirror')).toEqual([]);

  await server.start();
  const again = await server.fetch(`/v1/fine_tuning/jobs/${id}`);
  expect(((await again.json()) as { id: string }).id).toBe(id);
}, TEST_MS);

test('a job submitted just before a kill is admitted after the next start', async () => {
  const id = await submit();
  server.signal('SIGKILL');
  await server.exited;
  await server.start();
  const stream = await server.fetch(`/api/v1/jobs/${id}/events/stream`);
  const decoder = new TextDecoder();
  let text = '';
  for await (const chunk of stream.body as unknown as AsyncIterable<Uint8Array>) {
    text += decoder.decode(chunk, { stream: true });
    if (text.includes('"status":"queued"')) break;
  }
  expect(text).toContain('moving job to queued state');
  await server.post(`/v1/fine_tuning/jobs/${id}/cancel`, '');
}, TEST_MS);

test('it does not outlive the process that started it', async () => {
  server.disconnect();
  expect(await server.exited).toEqual({ code: 2, signal: null });
  await server.start();
}, TEST_MS);

test('a port that is taken, or a setting that is missing, is said in one line', async () => {
  const second = await server.startAnother({ TUNEFLEET_HTTP_PORT: new URL(server.url).port });
  expect(second).toMatchObject({ code: 1, output: expect.stringMatching(/tunefleet control plane: the HTTP server cannot listen on 127\.0\.0\.1:\d+/) });
  const unset = await server.startAnother({ TUNEFLEET_API_KEY: '', DATABASE_URL: '' });
  expect(unset.code).toBe(1);
  expect(unset.output.trim()).toMatch(/^tunefleet control plane: the environment is not complete: .*DATABASE_URL.*TUNEFLEET_API_KEY.*$/);
  expect(unset.output).not.toContain(API_KEY);
}, TEST_MS);
