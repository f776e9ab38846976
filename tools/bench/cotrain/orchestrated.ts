import { fineTuneResultSchema, type FineTuneResult } from '@tunefleet/contracts';
import type { TunefleetClient } from '@tunefleet/client-sdk';
import { counts } from '../report/options';
import { median, type Row } from '../report/row';
import { withOwnService } from '../service/own-service';

/** As given on the command line. */
export interface OrchestratedValues {
  readonly runs: string;
  readonly rank: string;
  readonly targets: string;
  readonly 'job-steps': string;
  readonly rounds: string;
  readonly dtype: string;
  readonly base: string;
}

interface Wish {
  readonly base: string;
  readonly file: string;
  readonly rank: number;
  readonly targets: string;
  readonly dtype: string;
}

interface Taken {
  /** From the first request to the end of the last job. */
  readonly seconds: number;
  readonly trainedTokens: number;
  /** Charged for all of them. */
  readonly gpuSeconds: number;
  readonly losses: readonly number[];
}

/** Jobs submitted at once to a service with one worker: sharing it, and each with the worker to itself, in turns. */
export async function measureOrchestrated(values: OrchestratedValues): Promise<Row[]> {
  const { runs, 'job-steps': steps, rounds, rank } = counts(values, ['runs', 'job-steps', 'rounds', 'rank']);
  return withOwnService(async (client) => {
    const [team] = (await client.teams.list()).data;
    await client.teams.change(team?.name ?? '', { shares_workers: true });
    const file = (await client.files.upload({ filename: 'rows.jsonl', content: rowsOfText(steps), purpose: 'fine-tune' })).id;
    const wish: Wish = { base: values.base, file, rank, targets: values.targets, dtype: values.dtype };
    // Loads the model, and makes the engine's kernels.
    await timed(client, wish, { runs: 1, share: false });
    await timed(client, wish, { runs: Math.min(2, runs), share: true });
    const [together, inTurn]: [Taken[], Taken[]] = [[], []];
    for (let round = 0; round < rounds; round++) {
      inTurn.push(await timed(client, wish, { runs, share: false }));
      together.push(await timed(client, wish, { runs, share: true }));
      process.stderr.write(`round ${round + 1}: in turn ${inTurn.at(-1)?.seconds.toFixed(2)} s, together ${together.at(-1)?.seconds.toFixed(2)} s\n`);
    }
    const name = `${runs} LoRA jobs of ${steps} steps through the API`;
    const compared = (what: string, unit: string, of: (taken: Taken) => number, isBetter: 'higher' | 'lower'): Row => {
      const [value, peer] = [median(together.map(of)), median(inTurn.map(of))];
      return { name: `${name}: ${what}`, unit, value, peer, ratio: isBetter === 'higher' ? value / peer : peer / value };
    };
    const difference = Math.max(...together.flatMap(({ losses }, round) => losses.map((loss, job) => Math.abs(loss - (inTurn[round]?.losses[job] ?? NaN)))));
    return [
      compared('speed sharing a worker, and in turn', 'tokens/s', ({ trainedTokens, seconds }) => trainedTokens / seconds, 'higher'),
      compared('first request to the end of the last', 's', ({ seconds }) => seconds, 'lower'),
      compared('GPU time charged for a job', 's', ({ gpuSeconds }) => gpuSeconds / runs, 'lower'),
      { name: `${name}: largest difference of last losses`, unit: 'nats', value: difference },
    ];
  });
}

async function timed(client: TunefleetClient, wish: Wish, { runs, share }: { readonly runs: number; readonly share: boolean }): Promise<Taken> {
  const started = performance.now();
  const ids = await Promise.all(Array.from({ length: runs }, (_, seed) => submit(client, wish, seed, share)));
  await Promise.all(ids.map((id) => ended(client, id)));
  const seconds = (performance.now() - started) / 1000;
  const jobs = await Promise.all(ids.map((id) => client.jobs.get(id)));
  const results = jobs.map(({ id, status, error, result }): FineTuneResult => {
    if (status !== 'succeeded') throw new Error(`job ${id} is ${status}: ${error?.message ?? ''}`);
    return fineTuneResultSchema.parse(result);
  });
  const attempts = jobs.flatMap((job) => job.attempts);
  if (share && runs > 1 && attempts.every(({ shared_worker_with }) => shared_worker_with.jobs.length === 0)) throw new Error('no job shared the worker with another');
  return {
    seconds,
    trainedTokens: results.reduce((sum, { trainedTokens }) => sum + trainedTokens, 0),
    gpuSeconds: attempts.reduce((sum, { gpu_seconds }) => sum + gpu_seconds, 0),
    losses: results.map(({ lossLast }) => lossLast),
  };
}

async function submit(client: TunefleetClient, { base, file, rank, targets, dtype }: Wish, seed: number, share: boolean): Promise<string> {
  const job = await client.fineTuning.jobs.create({
    model: base,
    training_file: file,
    seed,
    share,
    method: { type: 'supervised', supervised: { hyperparameters: { n_epochs: 1, batch_size: 1 } } },
    tuner: { kind: 'lora', r: rank, lora_alpha: 2 * rank, target_modules: targets },
    compute_dtype: dtype as 'auto' | 'f32' | 'bf16',
  });
  return job.id;
}

async function ended(client: TunefleetClient, id: string): Promise<void> {
  for await (const message of client.jobs.stream(id)) if (message.type === 'end') return;
}

/** Some 45 tokens a row with the marks of a chat; of a job's steps each takes one. */
function rowsOfText(count: number): string {
  return Array.from({ length: count }, (_, index) => JSON.stringify({ messages: [{ role: 'user', content: `What is ${index} + ${index}, said in a sentence?` }, { role: 'assistant', content: `The sum of ${index} and ${index} is ${2 * index}.` }] })).join('\n');
}
