import { appendFileSync, truncateSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TunefleetClient } from './client';
import { LocalServer, apiError, hangUp, json, type Answer } from './testing/local-server';

let server: LocalServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

async function clientOf(...answers: Answer[]): Promise<TunefleetClient> {
  server = await LocalServer.start(...answers);
  return new TunefleetClient({ baseUrl: `${server.url}/`, apiKey: 'secret-key', timeoutMs: 5_000 });
}

const file = (id: string) => ({ id, object: 'file', bytes: 3, created_at: 1, filename: 'a.jsonl', purpose: 'fine-tune', status: 'processed', sha256: '0'.repeat(64) });
const page = (ids: string[], hasMore: boolean) => json({ object: 'list', data: ids.map(file), has_more: hasMore, first_id: ids[0] ?? null, last_id: ids.at(-1) ?? null });
const worker = { id: 'wrk-1', object: 'worker' };

describe('requests', () => {
  test('carry the key, the encoded id and only the given query', async () => {
    const client = await clientOf(json({ id: 'ft:a/b:c', object: 'model', created: 1, owned_by: 'team', root: 'a/b', parent: null }), page([], false));
    await client.models.get('ft:a/b:c');
    await client.files.list({ limit: 5, purpose: undefined });
    expect(server?.seen.map(({ method, url }) => `${method} ${url}`)).toEqual(['GET /v1/models/ft%3Aa%2Fb%3Ac', 'GET /v1/files?limit=5']);
    expect(server?.seen[0]?.headers.authorization).toBe('Bearer secret-key');
  });

  test('metadata filters are spelled as the API wants them', async () => {
    const client = await clientOf(json({ object: 'list', data: [], has_more: false, first_id: null, last_id: null }));
    await client.jobs.list({ kind: 'eval', metadata: { 'a b': 'c&d' } });
    await client.jobs.list({ metadata: null });
    expect(server?.seen.map(({ url }) => decodeURIComponent(url.replaceAll('+', ' ')))).toEqual(['/api/v1/jobs?kind=eval&metadata[a b]=c&d', '/api/v1/jobs?metadata=null']);
  });

  test('an empty id is refused before it asks for something else', async () => {
    const client = await clientOf(page([], false));
    expect(() => client.files.get('')).toThrow('"" is not an id');
    expect(server?.seen).toEqual([]);
  });

  test('an answer of another shape names the place', async () => {
    const client = await clientOf(json({ object: 'list', data: [worker], has_more: false }));
    await expect(client.workers.list()).rejects.toMatchObject({ code: 'invariant', message: expect.stringMatching(/GET \/api\/v1\/workers .*data\.0\.name/) as unknown });
  });
});

describe('errors', () => {
  test("hold the server's status, code, param and message", async () => {
    const client = await clientOf(apiError(400, { message: 'n_epochs is 99; at most 50', code: 'invalid_value', param: 'n_epochs' }, { 'x-request-id': 'req-7' }));
    await expect(client.files.get('file-1')).rejects.toMatchObject({
      name: 'TunefleetError',
      code: 'invalid_input',
      status: 400,
      reason: 'invalid_value',
      param: 'n_epochs',
      message: 'n_epochs is 99; at most 50',
      requestId: 'req-7',
    });
  });

  test.each([
    [400, 'illegal_transition', 'illegal_transition'],
    [400, 'model_not_found', 'invalid_input'],
    [401, 'invalid_api_key', 'unauthenticated'],
    [403, null, 'permission_denied'],
    [404, 'model_not_found', 'not_found'],
    [409, 'idempotency_key_reused', 'conflict'],
    [500, null, 'invariant'],
  ])('%i %s becomes %s, without another try', async (status, code, expected) => {
    const client = await clientOf(apiError(status, { message: 'no', code }));
    await expect(client.files.get('file-1')).rejects.toMatchObject({ code: expected, status });
    expect(server?.seen).toHaveLength(1);
  });

  test("a proxy's page is not shown", async () => {
    const client = await clientOf((response) => void response.writeHead(404).end('<html>nginx</html>'));
    await expect(client.files.get('file-1')).rejects.toMatchObject({ code: 'not_found', message: 'the server answered 404 without saying why' });
  });

  test('no server: unavailable, with the reason', async () => {
    const client = await clientOf(hangUp);
    await server?.close();
    await expect(client.files.get('file-1')).rejects.toMatchObject({ code: 'unavailable', status: null, message: expect.stringContaining('ECONNREFUSED') as unknown });
  });

  test('a server that never answers: unavailable', async () => {
    server = await LocalServer.start(() => undefined);
    const client = new TunefleetClient({ baseUrl: server.url, apiKey: 'k', timeoutMs: 50, maxRetries: 0 });
    await expect(client.files.get('file-1')).rejects.toMatchObject({ code: 'unavailable', message: 'no answer within 50 ms' });
  });
});

describe('trying again', () => {
  const busy = apiError(503, { message: 'busy' }, { 'retry-after-ms': '1' });

  test('a cut connection and a busy server are asked again', async () => {
    const client = await clientOf(hangUp, busy, json(file('file-1')));
    expect((await client.files.get('file-1')).id).toBe('file-1');
    expect(server?.seen).toHaveLength(3);
  });

  test('at most twice', async () => {
    const client = await clientOf(busy);
    await expect(client.files.get('file-1')).rejects.toMatchObject({ status: 503 });
    expect(server?.seen).toHaveLength(3);
  });

  test('x-should-retry rules', async () => {
    const client = await clientOf(apiError(503, { message: 'no' }, { 'x-should-retry': 'false' }));
    await expect(client.files.get('file-1')).rejects.toMatchObject({ status: 503 });
    expect(server?.seen).toHaveLength(1);
  });

  test('a job is created with the same key each time', async () => {
    const client = await clientOf(hangUp, apiError(400, { message: 'no' }));
    await expect(client.fineTuning.jobs.create({ model: 'm', training_file: 'file-1' })).rejects.toMatchObject({ status: 400 });
    const keys = server?.seen.map(({ headers }) => headers['idempotency-key']);
    expect(keys?.[0]).toMatch(/^[0-9a-f-]{36}$/);
    expect(keys).toEqual([keys?.[0], keys?.[0]]);
  });

  test('an upload is not sent again after a cut connection, but to a busy server it is', async () => {
    const client = await clientOf(busy, hangUp);
    await expect(client.files.upload({ content: 'abc', filename: 'a.jsonl', purpose: 'fine-tune' })).rejects.toMatchObject({ code: 'unavailable', status: null });
    expect(server?.seen).toHaveLength(2);
  });

  test('an aborted signal ends the waiting', async () => {
    const stop = new AbortController();
    const client = await clientOf((response, request) => {
      stop.abort();
      return apiError(503, { message: 'busy' }, { 'retry-after': '50' })(response, request);
    });
    await expect(client.files.get('file-1', { signal: stop.signal })).rejects.toMatchObject({ code: 'cancelled' });
    expect(server?.seen).toHaveLength(1);
  });
});

describe('files', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'tunefleet-sdk-'));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  test('upload sends purpose, name and bytes as a form', async () => {
    const source = join(dir, 'mails.jsonl');
    await writeFile(source, '{"a":1}\n');
    const client = await clientOf(json(file('file-1')));
    await client.files.upload({ path: source, purpose: 'evals', expiresAfterSeconds: 3600 });
    const seen = server?.seen[0];
    const form = await new Response(new Uint8Array(seen?.body ?? []), { headers: { 'content-type': seen?.headers['content-type'] ?? '' } }).formData();
    expect([...form.keys()]).toEqual(['purpose', 'expires_after[anchor]', 'expires_after[seconds]', 'file']);
    expect(form.get('purpose')).toBe('evals');
    const sent = form.get('file') as File;
    expect([sent.name, await sent.text()]).toEqual(['mails.jsonl', '{"a":1}\n']);
    // A length lets the server refuse a file that is too large before reading it.
    expect(Number(seen?.headers['content-length'])).toBe(seen?.body.length);
  });

  test('odd names and content given as bytes arrive as they are', async () => {
    const client = await clientOf(json(file('file-1')));
    await client.files.upload({ content: new Uint8Array([0, 255, 13, 10]), filename: 'ü "1"\r\n.jsonl', purpose: 'evals' });
    const seen = server?.seen[0];
    const form = await new Response(new Uint8Array(seen?.body ?? []), { headers: { 'content-type': seen?.headers['content-type'] ?? '' } }).formData();
    const sent = form.get('file') as File;
    expect([sent.name, [...new Uint8Array(await sent.arrayBuffer())]]).toEqual(['ü "1"\r\n.jsonl', [0, 255, 13, 10]]);
  });

  test('a large file is not held in memory', async () => {
    const MIB = 1024 * 1024;
    const path = join(dir, 'large.jsonl');
    await writeFile(path, '');
    // No blocks on disk: reads give zeros.
    truncateSync(path, 300 * MIB);
    let received = 0;
    const sink = createServer((request, response) => {
      request.on('data', (chunk: Buffer) => (received += chunk.length));
      request.on('end', () => void json(file('file-1'))(response, { method: '', url: '', headers: {}, body: Buffer.alloc(0) }));
    });
    await new Promise<void>((resolve) => sink.listen(0, '127.0.0.1', resolve));
    const before = process.memoryUsage().arrayBuffers;
    let peak = 0;
    const watch = setInterval(() => (peak = Math.max(peak, process.memoryUsage().arrayBuffers - before)), 5);
    try {
      await new TunefleetClient({ baseUrl: `http://127.0.0.1:${(sink.address() as AddressInfo).port}`, apiKey: 'k' }).files.upload({ path, purpose: 'evals' });
    } finally {
      clearInterval(watch);
      sink.closeAllConnections();
      await new Promise((resolve) => sink.close(resolve));
    }
    expect(received).toBeGreaterThan(300 * MIB);
    // What awaits garbage collection counts too.
    expect(peak).toBeLessThan(200 * MIB);
  }, 20_000);

  test.each([
    ['grows', (path: string) => appendFileSync(path, 'more')],
    ['shrinks', (path: string) => truncateSync(path, 1)],
  ])('a file that %s while it is read is not stored by half', async (_what, change) => {
    const path = join(dir, 'live.jsonl');
    await writeFile(path, 'content');
    server = await LocalServer.start(json(file('file-1')));
    const changing: typeof fetch = (input, init) => {
      change(path);
      return fetch(input, init);
    };
    const client = new TunefleetClient({ baseUrl: server.url, apiKey: 'k', fetch: changing });
    await expect(client.files.upload({ path, purpose: 'evals' })).rejects.toMatchObject({ code: 'invalid_input', message: expect.stringContaining('changed while it was read') as unknown });
    expect(server.seen).toEqual([]);
  });

  test('a path that is no file is named', async () => {
    const client = await clientOf(json(file('file-1')));
    await expect(client.files.upload({ path: join(dir, 'absent'), purpose: 'evals' })).rejects.toMatchObject({ code: 'invalid_input', message: expect.stringContaining('absent cannot be read') as unknown });
    expect(server?.seen).toEqual([]);
  });

  test('content comes as bytes', async () => {
    const client = await clientOf((response) => void response.end(Buffer.from([0, 255, 10])));
    expect([...new Uint8Array(await new Response(await client.files.content('file-1')).arrayBuffer())]).toEqual([0, 255, 10]);
  });

  test('each walks all pages', async () => {
    const client = await clientOf(page(['file-1', 'file-2'], true), page(['file-3'], false));
    const ids: string[] = [];
    for await (const { id } of client.files.each({ limit: 2 })) ids.push(id);
    expect(ids).toEqual(['file-1', 'file-2', 'file-3']);
    expect(server?.seen.map(({ url }) => url)).toEqual(['/v1/files?limit=2', '/v1/files?limit=2&after=file-2']);
  });
});

describe('evals', () => {
  const item = (row: number) => ({ row, reference: 'ham', outputs: [{ model: 'm', prediction: 'h\u00e4m', correct: false }] });

  test('items are read line by line, also when a character is cut in two', async () => {
    const bytes = Buffer.from(`${JSON.stringify(item(1))}\n${JSON.stringify(item(2))}\n`);
    const cut = bytes.indexOf(0xc3) + 1;
    const client = await clientOf((response) => {
      response.write(bytes.subarray(0, cut));
      setImmediate(() => response.end(bytes.subarray(cut)));
    });
    const items = [];
    for await (const each of client.evals.items('evaljob-1')) items.push(each);
    expect(items).toEqual([item(1), item(2)]);
    expect(server?.seen.at(-1)?.url).toBe('/api/v1/evals/evaljob-1/items');
  });

  test('items of a running eval are refused by the server', async () => {
    const client = await clientOf(apiError(400, { message: 'eval job evaljob-1 is running', code: 'not_finished' }));
    await expect(client.evals.items('evaljob-1').next()).rejects.toMatchObject({ code: 'invalid_input', reason: 'not_finished', message: 'eval job evaljob-1 is running' });
  });
});
