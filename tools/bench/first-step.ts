/**
 * `npm run bench -- first-step`: from submitting a fine-tuning job through the API to its first training step, on a service of its own with one worker:
 * once with a cold engine, then with the base model in memory. Arguments after `--`: --jobs (warm ones; the median counts), --model.
 */
import { parseArgs } from 'node:util';
import type { TunefleetClient } from '@tunefleet/client-sdk';
import { median, type Row } from './report/row';
import { withOwnService } from './service/own-service';
import { count } from './report/options';

/** Seconds since the request was sent. */
interface FirstStep {
  /** The engine has model and data and starts the first pass. */
  readonly begun: number;
  /** The first step's metrics are on record. */
  readonly done: number;
}

const EXAMPLES = 10;

export async function run(args: string[]): Promise<Row[]> {
  const { values } = parseArgs({ args, options: { jobs: { type: 'string', default: '5' }, model: { type: 'string', default: 'HuggingFaceTB/SmolLM2-135M-Instruct' } } });
  const jobs = count('jobs', values.jobs);
  return withOwnService(async (client) => {
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
  });
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
