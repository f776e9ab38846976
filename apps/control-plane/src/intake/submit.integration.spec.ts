import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TunefleetClient } from '@tunefleet/client-sdk';
import type { JobStreamMessage } from '@tunefleet/contracts';
import { writeTinyModel } from '@tunefleet/testing';
import { API_KEY, ControlPlaneProcess, MAX_FILE_BYTES } from '../testing/control-plane-process';

/** From the SDK through HTTP, outbox and queue to intake's answer, and back as a stream. */
let server: ControlPlaneProcess;
let client: TunefleetClient;
let dir: string;
let model: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'tunefleet-submit-'));
  model = await writeTinyModel(join(dir, 'models', 'tiny'));
  server = await ControlPlaneProcess.open({ TUNEFLEET_LOCAL_MODELS: join(dir, 'models') });
  client = new TunefleetClient({ baseUrl: server.url, apiKey: API_KEY });
}, 120_000);
afterAll(async () => {
  await server?.close();
  await rm(dir, { recursive: true, force: true });
}, 60_000);

const rows = (count: number) => Array.from({ length: count }, (_, index) => JSON.stringify({ messages: [{ role: 'user', content: `mail ${index}` }, { role: 'assistant', content: 'ham' }] }));

async function upload(lines: readonly string[]): Promise<string> {
  const path = join(dir, `${randomBytes(4).toString('hex')}.jsonl`);
  await writeFile(path, lines.join('\n'));
  return (await client.files.upload({ path, purpose: 'fine-tune' })).id;
}

async function watched(jobId: string, until: (message: JobStreamMessage) => boolean): Promise<JobStreamMessage[]> {
  const messages: JobStreamMessage[] = [];
  for await (const message of client.jobs.stream(jobId)) {
    messages.push(message);
    if (until(message)) break;
  }
  return messages;
}

test('a good job waits in the queue, all settled; cancelling it ends its stream', async () => {
  const trainingFile = await upload(rows(10));
  const created = await client.fineTuning.jobs.create({ model, training_file: trainingFile, suffix: 'mails' });
  expect(created).toMatchObject({ status: 'validating_files', hyperparameters: { n_epochs: 'auto' } });
  const messages = await watched(created.id, (message) => message.type === 'job' && message.data.status === 'queued');
  expect(messages.flatMap((message) => (message.type === 'event' ? [message.data.message] : []))).toContain(`Validating training file: ${trainingFile}`);
  expect(await client.fineTuning.jobs.get(created.id)).toMatchObject({ hyperparameters: { n_epochs: 10, batch_size: 8, learning_rate_multiplier: 1 }, x_meta: { total_steps: 20, tuner: { kind: 'lora', r: 8 } } });

  const ending = watched(created.id, () => false);
  expect(await client.jobs.cancel(created.id)).toMatchObject({ status: 'cancelled' });
  expect((await ending).at(-1)).toEqual({ type: 'end', data: { status: 'cancelled' } });
}, 60_000);

test('a bad row ends the job, and the stream says why', async () => {
  const created = await client.fineTuning.jobs.create({ model, training_file: await upload([...rows(10), '{}']) });
  const messages = await watched(created.id, () => false);
  expect(messages.at(-1)).toEqual({ type: 'end', data: { status: 'failed' } });
  expect(await client.fineTuning.jobs.get(created.id)).toMatchObject({ status: 'failed', error: { code: 'invalid_training_file', param: 'training_file', message: expect.stringContaining('row 11') as unknown } });
}, 60_000);

test('an eval is queued; its answers are not there yet', async () => {
  const created = await client.evals.create({ model, file: await upload(rows(2)), metric: { type: 'label_likelihood', labels: ['ham', 'spam'] } });
  await watched(created.id, (message) => message.type === 'job' && message.data.status === 'queued');
  expect(await client.evals.get(created.id)).toMatchObject({ status: 'queued', total_steps: 2 });
  await expect(client.evals.items(created.id).next()).rejects.toMatchObject({ code: 'invalid_input', reason: 'not_finished' });
}, 60_000);

test('the same key makes one job, lists page, and errors keep their fields', async () => {
  const request = { model, training_file: await upload(rows(10)), metadata: { run: 'twice' } };
  const [first, second] = await Promise.all([1, 2].map(() => client.fineTuning.jobs.create(request, { idempotencyKey: 'key-1' })));
  expect(first?.id).toBe(second?.id);
  await expect(client.fineTuning.jobs.create({ ...request, seed: 4 }, { idempotencyKey: 'key-1' })).rejects.toMatchObject({ status: 400, reason: 'idempotency_key_reuse' });
  const found: string[] = [];
  for await (const job of client.jobs.each({ limit: 1, metadata: { run: 'twice' } })) found.push(job.id);
  expect(found).toEqual([first?.id]);
  await expect(client.fineTuning.jobs.create({ ...request, training_file: 'file-none' })).rejects.toMatchObject({ code: 'invalid_input', param: 'training_file', reason: 'file_not_found' });
  await expect(client.models.get('ft:none')).rejects.toMatchObject({ code: 'not_found', status: 404 });
});

test('files come back as they went, and one that is too large is refused with the limit', async () => {
  const content = randomBytes(MAX_FILE_BYTES - 1000).toString('latin1').slice(0, 100_000);
  const { id } = await client.files.upload({ content, filename: 'odd name ü.jsonl', purpose: 'user_data' });
  expect(await client.files.get(id)).toMatchObject({ filename: 'odd name ü.jsonl' });
  expect(await new Response(await client.files.content(id)).text()).toBe(content);
  for (const bytes of [MAX_FILE_BYTES + 1, 100 * MAX_FILE_BYTES]) {
    await expect(client.files.upload({ content: 'x'.repeat(bytes), filename: 'a', purpose: 'evals' })).rejects.toMatchObject({ status: 400, reason: 'file_too_large', message: expect.stringContaining(String(MAX_FILE_BYTES)) as unknown });
  }
  expect(await client.files.delete(id)).toMatchObject({ deleted: true });
});

test('the service says what it is doing', async () => {
  expect(await client.status()).toMatchObject({ queue: { backend: 'postgres' } });
  expect((await client.workers.list()).data).toEqual([]);
  expect((await client.adapters.list()).data).toEqual([]);
  await expect(new TunefleetClient({ baseUrl: server.url, apiKey: 'wrong-key' }).status()).rejects.toMatchObject({ code: 'unauthenticated', status: 401 });
});
