import { createHash } from 'node:crypto';
import { readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import OpenAI, { toFile } from 'openai';
import { losses, submit, untilEnd, untilStep } from './harness/jobs';
import { chatRows } from '@tunefleet/testing';
import { System } from './harness/system';

/** From files to an evaluated adapter, by the stock OpenAI client, by our SDK, and by the command line. */
let system: System;
beforeAll(async () => {
  system = await System.start();
}, 240_000);
afterAll(async () => {
  const { code, left } = await system.stop();
  expect({ code, left }).toEqual({ code: 0, left: [] });
}, 120_000);

const TEST_MS = 240_000;

test('the stock OpenAI client uploads, tunes, follows and finds the tuned model', async () => {
  const client = system.openai();
  const file = await client.files.create({ file: await toFile(Buffer.from(chatRows(24)), 'train.jsonl'), purpose: 'fine-tune' });
  expect(file).toMatchObject({ object: 'file', filename: 'train.jsonl', purpose: 'fine-tune' });
  expect(await (await client.files.content(file.id)).text()).toBe(chatRows(24));

  const created = await client.fineTuning.jobs.create({
    model: system.model,
    training_file: file.id,
    suffix: 'e2e',
    seed: 3,
    method: { type: 'supervised', supervised: { hyperparameters: { n_epochs: 2, batch_size: 4 } } },
  });
  expect(created.status).toMatch(/validating_files|queued|running/);
  const ended = await untilEnd(system.sdk(), created.id);
  expect(ended.error).toBeNull();

  const job = await client.fineTuning.jobs.retrieve(created.id);
  expect(job).toMatchObject({ status: 'succeeded', training_file: file.id, seed: 3, error: null });
  expect(job.fine_tuned_model).toMatch(/^ft:.*e2e/);
  expect(job.trained_tokens).toBeGreaterThan(0);

  const events = await client.fineTuning.jobs.listEvents(job.id, { limit: 100 });
  const steps = events.data.filter((event) => event.type === 'metrics').map((event) => (event.data as { step: number }).step);
  // Newest first: 24 rows by 4, twice.
  expect(steps.reverse()).toEqual(Array.from({ length: 12 }, (_, index) => index + 1));
  const checkpoints = await client.fineTuning.jobs.checkpoints.list(job.id);
  expect(checkpoints.data.map((checkpoint) => checkpoint.step_number)).toEqual([12, 6]);

  const [resultFile = ''] = job.result_files;
  const csv = await (await client.files.content(resultFile)).text();
  expect(csv.split('\n')[0]).toMatch(/^step,/);
  expect(csv.trim().split('\n')).toHaveLength(13);

  const models: string[] = [];
  for await (const model of client.models.list()) models.push(model.id);
  expect(models).toContain(job.fine_tuned_model);
}, TEST_MS);

test('an eval scores base and tuned model on the same rows, row by row on record', async () => {
  const client = system.sdk();
  const jobId = await submit(system, { rows: 24, epochs: 4, batchSize: 4 });
  const tuned = await untilEnd(client, jobId);
  expect(tuned.status).toBe('succeeded');
  const adapter = await client.adapters.get(tuned.adapter_id ?? '');
  const rows = await client.files.upload({ content: chatRows(20, 1000), filename: 'test.jsonl', purpose: 'evals' });
  const created = await client.evals.create({ model: adapter.name, compare_to: system.model, file: rows.id, metric: { type: 'label_likelihood', labels: ['ham', 'spam'] }, samples: 2 });
  await untilEnd(client, created.id);
  const { status, result, error } = await client.evals.get(created.id);
  expect({ status, error }).toEqual({ status: 'succeeded', error: null });
  expect(result?.candidates.map((candidate) => candidate.model)).toEqual([system.model, adapter.name]);
  expect(result?.candidates.map((candidate) => candidate.n)).toEqual([20, 20]);

  const items = [];
  for await (const item of client.evals.items(created.id)) items.push(item);
  expect(items.map((item) => item.row)).toEqual(Array.from({ length: 20 }, (_, index) => index + 1));
  for (const [index, candidate] of (result?.candidates ?? []).entries()) {
    expect(items.filter((item) => item.outputs[index]?.correct).length).toBe(candidate.correct);
  }
  expect(items.filter((item) => item.outputs[0]?.sample !== undefined)).toHaveLength(2);
}, TEST_MS);

test('bad rows, an unknown model and a wrong key are refused with what to do', async () => {
  const client = system.openai();
  const bad = await client.files.create({ file: await toFile(Buffer.from(`${chatRows(12)}{"messages": [{"role": "user", "content": "no answer"}]}\n`), 'bad.jsonl'), purpose: 'fine-tune' });
  const refused = await client.fineTuning.jobs.create({ model: system.model, training_file: bad.id }).then(
    async (job) => {
      await untilEnd(system.sdk(), job.id);
      return (await client.fineTuning.jobs.retrieve(job.id)).error?.message ?? '';
    },
    (error: unknown) => (error as Error).message,
  );
  expect(refused).toMatch(/13/);
  const good = await client.files.create({ file: await toFile(Buffer.from(chatRows(12)), 'good.jsonl'), purpose: 'fine-tune' });
  await expect(client.fineTuning.jobs.create({ model: 'no/such-model-anywhere!', training_file: good.id })).rejects.toMatchObject({ status: expect.any(Number) as unknown });
  await expect(client.fineTuning.jobs.create({ model: system.model, training_file: 'file-missing' })).rejects.toMatchObject({ status: expect.any(Number) as unknown });
  await expect(new OpenAI({ baseURL: `${system.url}/v1`, apiKey: 'wrong', maxRetries: 0 }).models.list()).rejects.toMatchObject({ status: 401 });
}, TEST_MS);

test('a running job can be cancelled; the worker is free for the next', async () => {
  const client = system.sdk();
  const long = await submit(system, { rows: 40, epochs: 50 });
  await untilStep(client, long, 3);
  const cancelled = await system.openai().fineTuning.jobs.cancel(long);
  expect(cancelled.status).toBe('cancelled');
  const before = (await losses(client, long)).length;
  const next = await untilEnd(client, await submit(system, { rows: 12, epochs: 1, batchSize: 4 }));
  expect(next.status).toBe('succeeded');
  expect((await client.jobs.get(long)).status).toBe('cancelled');
  expect(await losses(client, long)).toHaveLength(before);
}, TEST_MS);

test('the command line creates, watches, lists and pulls; its JSON is the API\'s', async () => {
  const data = join(system.dir, 'cli.jsonl');
  await writeFile(data, chatRows(16));
  const created = await system.cli('jobs', 'create', '--model', system.model, '--file', data, '--epochs', '1', '--batch-size', '4', '--rank', '4', '--suffix', 'cli', '--watch');
  expect(created.stderr).toMatch(/uploaded as file-/);
  expect(created).toMatchObject({ code: 0, stdout: expect.stringMatching(/succeeded after/) as unknown });

  const list = await system.cli('jobs', 'list', '--limit', '1', '--json');
  const [job] = (JSON.parse(list.stdout) as { data: { id: string; status: string; step: number }[] }).data;
  expect(job).toMatchObject({ status: 'succeeded', step: 4 });
  expect((await system.cli('jobs', 'get', job?.id ?? '')).stdout).toContain('attempt'.toUpperCase());
  expect((await system.cli('workers')).stdout).toContain('worker-1');

  const adapters = await system.cli('adapters', 'list', '--json');
  const adapter = (JSON.parse(adapters.stdout) as { data: { id: string; name: string; files: { name: string; sha256: string }[] }[] }).data[0];
  expect(adapter?.name).toContain('cli');
  const dir = join(system.dir, 'pulled');
  expect((await system.cli('adapters', 'pull', adapter?.name ?? '', dir)).code).toBe(0);
  expect((await readdir(dir)).sort()).toEqual(adapter?.files.map((file) => file.name).sort());
  expect(await readdir(dir)).toEqual(expect.arrayContaining(['adapter_config.json', 'adapter_model.safetensors']));
  for (const file of adapter?.files ?? []) {
    expect(createHash('sha256').update(await readFile(join(dir, file.name))).digest('hex')).toBe(file.sha256);
  }
  const config = JSON.parse(await readFile(join(dir, 'adapter_config.json'), 'utf8')) as Record<string, unknown>;
  expect(config).toMatchObject({ peft_type: 'LORA', r: 4, base_model_name_or_path: system.model });

  const missing = await system.cli('jobs', 'get', 'ftjob-nothing');
  expect(missing.code).toBe(4);
  expect(missing.stderr).toMatch(/^tunefleet: /);
}, TEST_MS);
