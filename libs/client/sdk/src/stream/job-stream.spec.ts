import type { JobStreamMessage } from '@tunefleet/contracts';
import { TunefleetClient } from '../client';
import { LocalServer, apiError, hangUp, json, type Answer } from '../testing/local-server';
import type { JobStreamOptions } from './job-stream';

let server: LocalServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

const sse = (text: string, { open = false } = {}): Answer => (response) => {
  response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' }).write(text);
  if (!open) response.end();
};
const metrics = (step: number, id = `${step}`) => `event: metrics\nid: ${id}\ndata: ${JSON.stringify({ step, values: { train_loss: 1 / step } })}\n\n`;
const end = 'event: end\ndata: {"status":"succeeded"}\n\n';

async function watch(answers: readonly Answer[], options: JobStreamOptions = {}): Promise<JobStreamMessage[]> {
  server = await LocalServer.start(...answers);
  const client = new TunefleetClient({ baseUrl: server.url, apiKey: 'k', maxRetries: 0 });
  const messages: JobStreamMessage[] = [];
  for await (const message of client.jobs.stream('ftjob-1', options)) messages.push(message);
  return messages;
}

test('messages come in order up to the end; what is unknown is left out', async () => {
  const messages = await watch([sse(`: ping\n\n${metrics(1)}event: later\ndata: {}\n\n${metrics(2)}${end}`, { open: true })]);
  expect(messages.map(({ type, data }) => [type, 'step' in data ? data.step : null])).toEqual([['metrics', 1], ['metrics', 2], ['end', null]]);
  expect(server?.seen[0]?.url).toBe('/api/v1/jobs/ftjob-1/events/stream');
  expect(server?.seen[0]?.headers['last-event-id']).toBeUndefined();
});

test('a broken connection goes on behind the last event', async () => {
  const cut: Answer = (response, request) => {
    void sse(metrics(1, 'a') + metrics(2, 'b') + 'event: metrics\nda', { open: true })(response, request);
    setTimeout(() => response.destroy(), 20);
  };
  const messages = await watch([cut, sse(end)]);
  expect(messages.map(({ type }) => type)).toEqual(['metrics', 'metrics', 'end']);
  expect(server?.seen.map(({ headers }) => headers['last-event-id'])).toEqual([undefined, 'b']);
});

test('silence is taken for a dead connection', async () => {
  const messages = await watch([sse(metrics(1), { open: true }), sse(end)], { silenceMs: 60 });
  expect(messages.map(({ type }) => type)).toEqual(['metrics', 'end']);
});

test.each([
  ['cut connections', hangUp],
  ['a proxy that answers with something else', json({})],
])('%s: given up after five in a row', async (_what, answer) => {
  await expect(watch([answer])).rejects.toMatchObject({ code: 'unavailable' });
  expect(server?.seen).toHaveLength(5);
}, 20_000);

test('an unknown job is not asked for again', async () => {
  await expect(watch([apiError(404, { message: 'no such job' })])).rejects.toMatchObject({ code: 'not_found', message: 'no such job' });
  expect(server?.seen).toHaveLength(1);
});

test('a message of another form is not passed on', async () => {
  await expect(watch([sse('event: end\ndata: {"status":"odd"}\n\n')])).rejects.toMatchObject({ code: 'invariant', message: expect.stringContaining('status') as unknown });
});

test('aborting ends the stream, and leaving it closes the connection', async () => {
  const stop = new AbortController();
  let closed = false;
  server = await LocalServer.start((response, request) => {
    response.on('close', () => (closed = true));
    return sse(metrics(1), { open: true })(response, request);
  });
  const client = new TunefleetClient({ baseUrl: server.url, apiKey: 'k' });
  const stream = client.jobs.stream('ftjob-1', { signal: stop.signal });
  expect((await stream.next()).value).toMatchObject({ type: 'metrics' });
  stop.abort();
  await expect(stream.next()).rejects.toMatchObject({ code: 'cancelled' });
  for (let waited = 0; !closed && waited < 100; waited++) await new Promise((resolve) => setTimeout(resolve, 10));
  expect(closed).toBe(true);
});
