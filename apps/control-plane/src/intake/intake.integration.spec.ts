import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fineTuneSpecSchema, evalSpecSchema } from '@tunefleet/contracts';
import { silentLogger, sleep, systemClock } from '@tunefleet/foundation';
import { openQueue } from '@tunefleet/queue-bullmq';
import { until, useDatabase } from '@tunefleet/testing';
import { relayOutbox } from '../loops/outbox-relay';
import { startIntake } from './start-intake';
import { takeIn } from './take-in';
import { IntakeHarness } from './testing/intake-harness';

const databaseUrl = useDatabase();
let intake: IntakeHarness;
beforeAll(async () => {
  intake = await IntakeHarness.open(databaseUrl());
}, 60_000);
afterAll(() => intake?.close());

const chat = (question: string, answer: string) => JSON.stringify({ messages: [{ role: 'user', content: question }, { role: 'assistant', content: answer }] });
const goodRows = (count: number) => Array.from({ length: count }, (_, index) => chat(`mail ${index}`, index % 2 ? 'spam' : 'ham'));
const jsonl = (rows: readonly string[]) => rows.join('\n');
/** Good rows with one bad row in place 3. */
const withRow3 = (row: string) => jsonl(goodRows(12).toSpliced(2, 1, row));
const ADAPTER = [{ name: 'adapter_model.safetensors', sha256: 'a'.repeat(64), bytes: 100 }];

describe('a good fine-tune job', () => {
  test('is queued with a spec in which everything is settled', async () => {
    const trainingFile = await intake.upload(jsonl(goodRows(20)));
    const validationFile = await intake.upload(jsonl([chat('held out', 'ham')]));
    const id = await intake.fineTune({ trainingFile, validationFile, hyperparameters: { n_epochs: 2 } });
    const job = await intake.takenIn(id);
    expect(job).toMatchObject({ status: 'queued', error: null, totalSteps: 6 });
    expect(job.memoryBytesEstimate).toBeGreaterThan(0);
    expect(job.spec).toMatchObject({ hyperparameters: { n_epochs: 2, batch_size: 8, learning_rate_multiplier: 1 }, maxSequenceLength: 128 });
    const spec = fineTuneSpecSchema.parse(job.workerSpec);
    expect(spec).toMatchObject({ base: { id: intake.model, revision: expect.stringMatching(/^local-/) as unknown }, epochs: 2, batchSize: 8, tuner: { kind: 'lora', r: 8 } });
    expect((await intake.store.records.getFile(intake.team.id, trainingFile))?.sha256).toBe(spec.trainingFile.sha256);
    expect(job.trainingDatasetId).not.toBe(job.validationDatasetId);
    expect(await intake.messages(id)).toEqual([`Job created: ${id}`, `Validating training file: ${trainingFile}`, `Validating validation file: ${validationFile}`, 'Files validated, moving job to queued state']);
  });

  test('two looks at once give one outcome, a third changes nothing', async () => {
    const id = await intake.fineTune({ trainingFile: await intake.upload(jsonl(goodRows(10))) });
    const outcomes = await Promise.all([takeIn(id, intake.deps), takeIn(id, intake.deps)]);
    expect(outcomes.sort()).toEqual(['admitted', 'not_validating']);
    const before = await intake.job(id);
    expect(await takeIn(id, intake.deps)).toBe('not_validating');
    expect(await intake.job(id)).toEqual(before);
    expect((await intake.messages(id)).filter((message) => message.includes('queued state'))).toHaveLength(1);
  });

  test('the same content is one dataset version, whatever its file and spacing', async () => {
    const rows = goodRows(11);
    const jobs = await Promise.all([jsonl(rows), `${rows.join('\r\n')}\n\n`].map(async (content) => intake.takenIn(await intake.fineTune({ trainingFile: await intake.upload(content) }))));
    expect(jobs.map(({ status }) => status)).toEqual(['queued', 'queued']);
    expect(jobs[0]?.trainingDatasetId).toBe(jobs[1]?.trainingDatasetId);
  });

  test('a tuned model is trained on from its adapter, with its tuner', async () => {
    const trainingFile = await intake.upload(jsonl(goodRows(10)));
    const first = await intake.fineTune({ trainingFile, tuner: { kind: 'lora', r: 4, target_modules: ['q_proj'] } });
    await intake.takenIn(first);
    const tuned = await intake.finish(first, ADAPTER);
    const next = await intake.takenIn(await intake.fineTune({ model: tuned, trainingFile }));
    expect(next).toMatchObject({ status: 'queued', workerSpec: { base: { id: intake.model }, startAdapter: ADAPTER, tuner: { r: 4, target_modules: ['q_proj'] } } });
    const other = await intake.takenIn(await intake.fineTune({ model: tuned, trainingFile, tuner: { kind: 'lora', r: 5, target_modules: ['q_proj'] } }));
    expect(other).toMatchObject({ status: 'failed', error: { class: 'user', param: 'tuner.r', code: 'tuner_does_not_fit_adapter' } });
  });
});

describe('files that are refused', () => {
  test.each([
    ['invalid JSON', withRow3('{"messages": ['), /^training_file: row 3: is not valid JSON .*write one JSON object per line/],
    ['a wrong role', withRow3(JSON.stringify({ messages: [{ role: 'bot', content: 'x' }] })), /^training_file: row 3, .*"bot"; it must be system, developer, user, assistant or tool/],
    ['an empty answer', withRow3(chat('q', ' ')), /^training_file: row 3, \/messages\/1\/content: the assistant message is empty; write the answer to learn, or remove the row/],
    ['no answer at all', withRow3(JSON.stringify({ messages: [{ role: 'user', content: 'x' }] })), /^training_file: row 3, .*it must be the assistant's/],
    ['two formats', withRow3('{"prompt": "a", "completion": "b"}'), /^training_file: row 3: is a completion row but row 1 is a chat row/],
    ['a NUL in broken JSON', withRow3('{"a": \u0000}'), /^training_file: row 3: is not valid JSON/],
    ['too few rows', jsonl(goodRows(9)), /^training_file: the file: has 9 good rows, at least 10 are needed/],
    ['a row longer than the model reads', withRow3(chat('x'.repeat(600 * 128), 'y')), /^training_file: row 3: has at least 601 tokens, more than the maximum sequence length 512; shorten the row/],
  ])('%s', async (_what, content, message) => {
    const job = await intake.takenIn(await intake.fineTune({ trainingFile: await intake.upload(content) }));
    expect(job).toMatchObject({ status: 'failed', workerSpec: null, error: { class: 'user', param: 'training_file', message: expect.stringMatching(message) as unknown } });
    expect((await intake.messages(job.id)).at(-1)).toBe(job.error?.message);
    expect(job.finishedAt).not.toBeNull();
  });

  test('bytes that are not UTF-8', async () => {
    const trainingFile = await intake.upload(Buffer.concat([Buffer.from(`${jsonl(goodRows(10))}\n`), Buffer.from([0x7b, 0xff, 0x7d])]));
    expect(await intake.takenIn(await intake.fineTune({ trainingFile }))).toMatchObject({ status: 'failed', error: { code: 'invalid_training_file', message: expect.stringContaining('row 11: is not UTF-8 text') as unknown } });
  });

  test('all bad rows are listed, in order', async () => {
    const job = await intake.takenIn(await intake.fineTune({ trainingFile: await intake.upload(jsonl([...goodRows(10), '1', '[]'])) }));
    expect(job.error?.message).toMatch(/row 11: .*\(and 1 more problem\)$/);
    expect(job.error?.logTail.map((line) => line.split(':')[0])).toEqual(['row 11', 'row 12']);
  });

  test('a bad validation file is named as such', async () => {
    const job = await intake.takenIn(await intake.fineTune({ trainingFile: await intake.upload(jsonl(goodRows(10))), validationFile: await intake.upload('{}') }));
    expect(job).toMatchObject({ status: 'failed', error: { code: 'invalid_validation_file', param: 'validation_file', message: expect.stringContaining('row 1') as unknown } });
  });

  test('a file whose bytes are gone', async () => {
    const trainingFile = await intake.upload(jsonl(goodRows(13)));
    await intake.blobs.delete((await intake.store.records.getFile(intake.team.id, trainingFile))?.sha256 ?? '');
    expect(await intake.takenIn(await intake.fineTune({ trainingFile }))).toMatchObject({ status: 'failed', error: { code: 'file_content_missing', param: 'training_file' } });
  });
});

test('a good file is read once, however often it is used; one whose bytes have gone since is refused', async () => {
  let reads = 0;
  const { blobs } = intake;
  const deps = { ...intake.deps, blobs: { stat: blobs.stat.bind(blobs), open: (...request: Parameters<typeof blobs.open>) => (reads++, blobs.open(...request)) } };
  const trainingFile = await intake.upload(jsonl(goodRows(17)));
  const validationFile = await intake.upload(jsonl([...goodRows(2), chat('another', 'ham')]));
  const jobs = [];
  for (let n = 0; n < 2; n++) jobs.push(await intake.takenIn(await intake.fineTune({ trainingFile, validationFile }), deps));
  expect(jobs.map(({ status, totalSteps, trainingDatasetId, validationDatasetId }) => [status, totalSteps, trainingDatasetId, validationDatasetId])).toEqual(Array(2).fill(['queued', jobs[0]?.totalSteps, jobs[0]?.trainingDatasetId, jobs[0]?.validationDatasetId]));
  expect((await intake.messages(jobs[1]?.id ?? '')).filter((message) => message.includes('also in training_file'))).toHaveLength(1);
  expect(reads).toBe(2);
  // The same bytes as rows of another kind are another matter.
  expect(await intake.takenIn(await intake.fineTune({ trainingFile, method: 'dpo' }), deps)).toMatchObject({ status: 'failed' });
  expect(reads).toBe(3);
  await blobs.delete((await intake.store.records.getFile(intake.team.id, trainingFile))?.sha256 ?? '');
  expect(await intake.takenIn(await intake.fineTune({ trainingFile }), deps)).toMatchObject({ status: 'failed', error: { code: 'file_content_missing' } });
}, 20_000);

describe('requests that do not fit the model', () => {
  let trainingFile: string;
  beforeAll(async () => {
    trainingFile = await intake.upload(jsonl(goodRows(10)));
  });

  test('a tuner that matches nothing', async () => {
    const job = await intake.takenIn(await intake.fineTune({ trainingFile, tuner: { kind: 'lora', target_modules: ['c_attn'] } }));
    expect(job).toMatchObject({ status: 'failed', error: { class: 'user', param: 'tuner.target_modules', message: expect.stringContaining('c_attn') as unknown } });
  });

  test('a sequence longer than the model was made for', async () => {
    const job = await intake.takenIn(await intake.fineTune({ trainingFile, maxSequenceLength: 513 }));
    expect(job).toMatchObject({ status: 'failed', error: { param: 'max_seq_length', message: expect.stringContaining('513') as unknown } });
  });

  test('a folder outside those allowed, and a tuned model that is gone', async () => {
    const outside = await intake.takenIn(await intake.fineTune({ trainingFile, model: '/etc' }));
    expect(outside).toMatchObject({ status: 'failed', error: { class: 'user', param: 'model', code: 'model_not_available' } });
    const gone = await intake.takenIn(await intake.fineTune({ trainingFile, model: 'ft:a:b::c' }));
    expect(gone).toMatchObject({ status: 'failed', error: { class: 'user', param: 'model', code: 'model_not_found' } });
  });

  test('more memory than any worker has', async () => {
    await intake.addWorker();
    const model = await intake.addModel('huge', { hidden_size: 65_536, num_hidden_layers: 512 });
    const job = await intake.takenIn(await intake.fineTune({ trainingFile, model }));
    expect(job).toMatchObject({ status: 'failed', error: { class: 'resource', code: 'no_worker_large_enough', message: expect.stringMatching(/needs about \d+ GiB .*has 8.00 GiB and gives a job 92 % of it: choose a smaller base model/) as unknown } });
  });
});

describe('models from the hub', () => {
  let hub: Server;
  let status = 404;
  let endpoint: string;
  beforeAll(async () => {
    hub = createServer((_request, response) => void response.writeHead(status, { 'content-type': 'application/json' }).end('{"error":"Repository not found"}'));
    await new Promise<void>((resolve) => hub.listen(0, '127.0.0.1', resolve));
    endpoint = `http://127.0.0.1:${(hub.address() as AddressInfo).port}`;
  });
  afterAll(async () => {
    hub.closeAllConnections();
    await new Promise((resolve) => hub.close(resolve));
  });

  test('an unknown model is refused at once', async () => {
    status = 404;
    const id = await intake.fineTune({ trainingFile: await intake.upload(jsonl(goodRows(10))), model: 'nobody/nothing' });
    expect(await intake.takenIn(id, intake.withHub(endpoint))).toMatchObject({ status: 'failed', error: { class: 'user', code: 'model_not_found', param: 'model', message: expect.stringContaining('nobody/nothing') as unknown } });
  });

  test('a hub that is down is asked again for a while, then the job fails as infrastructure', async () => {
    status = 503;
    const id = await intake.fineTune({ trainingFile: await intake.upload(jsonl(goodRows(10))), model: 'owner/name' });
    const deps = intake.withHub(endpoint);
    await expect(takeIn(id, deps)).rejects.toMatchObject({ code: 'unavailable' });
    await expect(takeIn(id, deps)).rejects.toMatchObject({ code: 'unavailable' });
    expect(await intake.job(id)).toMatchObject({ status: 'validating_files' });
    expect((await intake.messages(id)).filter((message) => message.endsWith('Trying again'))).toHaveLength(1);
    const later = { ...deps, clock: { ...systemClock, now: () => Date.now() + 31_000 } };
    expect(await intake.takenIn(id, later)).toMatchObject({ status: 'failed', error: { class: 'infrastructure', param: 'model', message: expect.stringMatching(/tried for 3\d seconds.*Submit it again later/) as unknown } });
  });
});

describe('evals', () => {
  let file: string;
  let tuned: string;
  beforeAll(async () => {
    file = await intake.upload(jsonl(goodRows(6)));
    const job = await intake.fineTune({ trainingFile: await intake.upload(jsonl(goodRows(10))) });
    await intake.takenIn(job);
    tuned = await intake.finish(job, ADAPTER);
  });

  test('an adapter against its base: both on the same rows', async () => {
    const job = await intake.takenIn(await intake.evaluate({ file, model: tuned, compareTo: [intake.model], limit: 4, samples: 2 }));
    expect(job).toMatchObject({ status: 'queued', totalSteps: 4 });
    expect(evalSpecSchema.parse(job.workerSpec)).toMatchObject({
      base: { id: intake.model },
      candidates: [{ model: intake.model }, { model: tuned, adapter: ADAPTER }],
      file: { name: 'eval.jsonl' },
      limit: 4,
      samples: 2,
      metric: { labels: ['ham', 'spam'] },
    });
  });

  test('an answer that is no label is named with its row', async () => {
    const job = await intake.takenIn(await intake.evaluate({ file: await intake.upload(jsonl([...goodRows(2), chat('q', 'eggs')])) }));
    expect(job).toMatchObject({ status: 'failed', error: { class: 'user', code: 'answer_not_a_label', param: 'file', message: expect.stringMatching(/^file: row 3: the right answer "eggs" is none of the labels/) as unknown } });
  });

  test('a model that has been deleted', async () => {
    const job = await intake.takenIn(await intake.evaluate({ file, compareTo: ['ft:gone'] }));
    expect(job).toMatchObject({ status: 'failed', error: { code: 'model_not_found', param: 'compare_to' } });
  });
});

test('woken by the queue: from the outbox to the end', async () => {
  const good = await intake.fineTune({ trainingFile: await intake.upload(jsonl(goodRows(10))) });
  const bad = await intake.fineTune({ trainingFile: await intake.upload('nothing') });
  const evaluation = await intake.evaluate({ file: await intake.upload(jsonl(goodRows(1))) });
  const queue = await openQueue({ postgresUrl: databaseUrl(), logger: silentLogger });
  try {
    const running = await startIntake({ ...intake.deps, queue });
    await relayOutbox(intake.store.outbox, queue);
    const statuses = async () => Promise.all([good, bad, evaluation].map(async (id) => (await intake.job(id)).status));
    for (let waited = 0; waited < 20_000 && (await statuses()).includes('validating_files'); waited += 20) await sleep(20);
    expect(await statuses()).toEqual(['queued', 'failed', 'queued']);
    await running.stop();
  } finally {
    await queue.close();
  }
}, 40_000);

describe('offered as it was put on record', () => {
  const open: { close(): unknown }[] = [];
  afterEach(async () => {
    for (const each of open.splice(0).reverse()) await each.close();
  });
  const begin = async (deps = intake.deps) => {
    const queue = await openQueue({ postgresUrl: databaseUrl(), logger: silentLogger });
    open.push(queue);
    const running = await startIntake({ ...deps, queue });
    open.push({ close: () => running.stop() });
    return { queue, running };
  };
  const hubAnswering = async (status: number) => {
    const hub = createServer((_request, response) => void response.writeHead(status).end('{}'));
    await new Promise<void>((resolve) => hub.listen(0, '127.0.0.1', resolve));
    open.push({
      close: () => {
        hub.closeAllConnections();
        hub.close();
      },
    });
    return intake.withHub(`http://127.0.0.1:${(hub.address() as AddressInfo).port}`);
  };
  const ended = (id: string) => until('intake to end', async () => (await intake.job(id)).status !== 'validating_files');
  beforeEach(() => relayOutbox(intake.store.outbox, { add: () => Promise.resolve() }));

  test('it is checked without the queue, to which nothing is owed then', async () => {
    const { running } = await begin();
    const good = await intake.fineTune({ trainingFile: await intake.upload(jsonl(goodRows(10))) });
    const bad = await intake.fineTune({ trainingFile: await intake.upload('nothing') });
    for (const id of [good, bad]) expect(running.offer(await intake.job(id))).toBe(true);
    await Promise.all([good, bad].map(ended));
    expect(await Promise.all([good, bad].map(async (id) => (await intake.job(id)).status))).toEqual(['queued', 'failed']);
    expect(await intake.store.outbox.lagMs()).toBe(0);
    await running.stop();
    expect(running.offer(await intake.job(good))).toBe(false);
  });

  test('what the process cannot finish is still owed to the queue, and done by whoever gets it', async () => {
    const first = await begin(await hubAnswering(503));
    const id = await intake.fineTune({ trainingFile: await intake.upload(jsonl(goodRows(10))), model: 'owner/name' });
    expect(first.running.offer(await intake.job(id))).toBe(true);
    await first.running.stop();
    await first.queue.close();
    expect(await intake.job(id)).toMatchObject({ status: 'validating_files' });

    const { queue } = await begin(await hubAnswering(404));
    expect(await relayOutbox(intake.store.outbox, queue)).toBe(1);
    await ended(id);
    expect(await intake.job(id)).toMatchObject({ status: 'failed', error: { code: 'model_not_found' } });
  }, 40_000);

  test('the message of a job that is being checked waits for that check, and finds nothing to do', async () => {
    let release: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    let looks = 0;
    const { resolver } = intake.deps;
    const describeLater: typeof resolver.describe = async (...request) => {
      looks++;
      await held;
      return resolver.describe(...request);
    };
    const { queue, running } = await begin({ ...intake.deps, resolver: { describe: describeLater } });
    const id = await intake.fineTune({ trainingFile: await intake.upload(jsonl(goodRows(10))) });
    running.offer(await intake.job(id));
    expect(await relayOutbox(intake.store.outbox, queue)).toBe(1);
    await until('the message to be taken', async () => (await queue.counts('tune')).active === 1);
    release();
    await until('the message to be handled', async () => (await queue.counts('tune')).active === 0);
    expect(await intake.job(id)).toMatchObject({ status: 'queued' });
    expect(looks).toBe(1);
  }, 40_000);
});
