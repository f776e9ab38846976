import type { JobDetail, MetricPoint } from '@tunefleet/contracts';
import type { TunefleetClient } from '@tunefleet/client-sdk';
import type { System } from './system';
import { chatRows, until } from '@tunefleet/testing';

const END_MS = 180_000;

export interface JobWish {
  readonly rows: number;
  readonly epochs: number;
  /** Rows per step; default 1, so that a job has `rows * epochs` steps. */
  readonly batchSize?: number;
  readonly checkpointEvery?: number;
  /** Default: 5. */
  readonly seed?: number;
  readonly learningRate?: number;
  /** Default: LoRA of rank 4 on all maps, with dropout. */
  readonly tuner?: { readonly kind: string; readonly [field: string]: unknown };
  readonly share?: boolean;
  /** `auto` may be settled differently by two workers that measure at the same time. */
  readonly computeDtype?: 'f32';
}

export async function submit(system: System, wish: JobWish): Promise<string> {
  const client = system.sdk();
  const file = await client.files.upload({ content: chatRows(wish.rows), filename: 'train.jsonl', purpose: 'fine-tune' });
  const job = await client.fineTuning.jobs.create({
    model: system.model,
    training_file: file.id,
    seed: wish.seed ?? 5,
    method: {
      type: 'supervised',
      supervised: { hyperparameters: { n_epochs: wish.epochs, batch_size: wish.batchSize ?? 1, learning_rate: wish.learningRate ?? 1e-3, checkpoint_every_steps: wish.checkpointEvery ?? 0 } },
    },
    tuner: wish.tuner ?? { kind: 'lora', r: 4, lora_alpha: 8, lora_dropout: 0.1, target_modules: 'all-linear' },
    max_seq_length: 128,
    ...(wish.share === undefined ? {} : { share: wish.share }),
    ...(wish.computeDtype === undefined ? {} : { compute_dtype: wish.computeDtype }),
  });
  return job.id;
}

export async function untilStep(client: TunefleetClient, jobId: string, step: number): Promise<void> {
  let job: JobDetail | undefined;
  await until(
    `step ${step} of ${jobId}`,
    async () => {
      job = await client.jobs.get(jobId);
      if (['failed', 'succeeded', 'cancelled'].includes(job.status)) throw new Error(`${jobId} is ${job.status} before step ${step}: ${JSON.stringify(job.error)}`);
      return (await client.jobs.metrics(jobId, { name: 'train_loss', sinceStep: step - 1, limit: 1 })).data.length > 0;
    },
    { timeoutMs: END_MS, detail: () => describe(job) },
  );
}

export async function untilEnd(client: TunefleetClient, jobId: string): Promise<JobDetail> {
  let job: JobDetail | undefined;
  await until(
    `the end of ${jobId}`,
    async () => {
      // A control plane that was just killed does not answer for a moment.
      job = await client.jobs.get(jobId).catch(() => job);
      return job !== undefined && ['failed', 'succeeded', 'cancelled'].includes(job.status);
    },
    { timeoutMs: END_MS, detail: () => describe(job) },
  );
  return job as JobDetail;
}

/** Every stored training loss, in the order of the record. */
export async function losses(client: TunefleetClient, jobId: string): Promise<MetricPoint[]> {
  const points: MetricPoint[] = [];
  for (let sinceStep: number | undefined; ; ) {
    const page = await client.jobs.metrics(jobId, { name: 'train_loss', limit: 1000, ...(sinceStep === undefined ? {} : { sinceStep }) });
    points.push(...page.data);
    sinceStep = page.data.at(-1)?.step;
    if (!page.has_more || sinceStep === undefined) return points;
  }
}

function describe(job: JobDetail | undefined): string {
  return job === undefined ? 'nothing' : `${job.status}, step ${job.step}/${job.total_steps}, ${job.waiting_reason ?? ''} ${JSON.stringify(job.error)}`;
}
