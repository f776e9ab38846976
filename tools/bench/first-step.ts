/**
 * `npm run bench -- first-step`: from submitting a fine-tuning job through the API to its first training step, on a service of its own with one worker:
 * once with a cold engine, then with the base model in memory. Arguments after `--`: --jobs (warm ones; the median counts), --model.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { TunefleetClient } from '@tunefleet/client-sdk';
import { sleep } from '@tunefleet/foundation';
import { median, type Row } from './report/row';

/** Seconds since the request was sent. */
interface FirstStep {
  /** The engine has model and data and starts the first pass. */
  readonly begun: number;
  /** The first step's metrics are on record. */
  readonly done: number;
}

const START_MS = 120_000;
const POLL_MS = 100;
const EXAMPLES = 10;

export async function run(args: string[]): Promise<Row[]> {
  const { values } = parseArgs({ args, options: { jobs: { type: 'string', default: '5' }, model: { type: 'string', default: 'HuggingFaceTB/SmolLM2-135M-Instruct' } } });
  const jobs = Number(values.jobs);
  if (!Number.isInteger(jobs) || jobs < 1) throw new Error(`--jobs is "${values.jobs}"; it must be a positive whole number`);
  const dataDir = await mkdtemp(join(tmpdir(), 'tunefleet-first-step-'));
  const service = spawn(process.execPath, [join(process.cwd(), 'dist', 'cli.mjs'), 'up', '--data-dir', dataDir, '--port', '0'], { stdio: ['ignore', 'ignore', 'inherit'] });
  const ended = new Promise<void>((resolve) => service.once('exit', () => resolve()));
  try {
    const client = await connect(dataDir, service);
    const file = await client.files.upload({ filename: 'rows.jsonl', content: rowsOfText(), purpose: 'fine-tune' });
    const cold = await firstStep(client, values.model, file.id);
    const warm: FirstStep[] = [];
    for (let job = 0; job < jobs; job++) warm.push(await firstStep(client, values.model, file.id));
    const row = (name: string, value: number): Row => ({ name: `submit to first step, ${name}`, unit: 's', value });
    return [
      row('cold engine: begun', cold.begun),
      row('cold engine: done', cold.done),
      row('warm engine: begun', median(warm.map(({ begun }) => begun))),
      row('warm engine: done', median(warm.map(({ done }) => done))),
    ];
  } finally {
    service.kill('SIGTERM');
    await ended;
    await rm(dataDir, { recursive: true, force: true });
  }
}

async function connect(dataDir: string, service: { readonly exitCode: number | null }): Promise<TunefleetClient> {
  for (const deadline = performance.now() + START_MS; performance.now() < deadline; await sleep(POLL_MS)) {
    if (service.exitCode !== null) throw new Error(`the service ended with ${service.exitCode}`);
    try {
      const { url } = JSON.parse(await readFile(join(dataDir, 'server.json'), 'utf8')) as { url: string };
      const { apiKey } = JSON.parse(await readFile(join(dataDir, 'secrets.json'), 'utf8')) as { apiKey: string };
      const client = new TunefleetClient({ baseUrl: url, apiKey });
      if ((await client.workers.list()).data.some(({ status }) => status === 'online')) return client;
    } catch {
      // Not up yet.
    }
  }
  throw new Error(`the service was not ready within ${START_MS / 1000} s`);
}

/** One example per step, so that the step itself takes little. */
async function firstStep(client: TunefleetClient, model: string, file: string): Promise<FirstStep> {
  const started = performance.now();
  const seconds = (): number => (performance.now() - started) / 1000;
  const { id } = await client.fineTuning.jobs.create({ model, training_file: file, method: { type: 'supervised', supervised: { hyperparameters: { n_epochs: 1, batch_size: 1 } } } });
  let begun: number | null = null;
  let done: number | null = null;
  for await (const message of client.jobs.stream(id)) {
    if (begun === null && message.type === 'job' && message.data.phase === 'train') begun = seconds();
    if (done === null && message.type === 'metrics') done = seconds();
  }
  const { status, error } = await client.jobs.get(id);
  if (status !== 'succeeded' || done === null) throw new Error(`job ${id} is ${status}: ${error?.message ?? 'no metrics came'}`);
  return { begun: begun ?? done, done };
}

function rowsOfText(): string {
  return Array.from({ length: EXAMPLES }, (_, index) => JSON.stringify({ messages: [{ role: 'user', content: `What is ${index} + ${index}?` }, { role: 'assistant', content: `${2 * index}` }] })).join('\n');
}
