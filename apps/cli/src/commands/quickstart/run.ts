import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fineTuneResultSchema, type AdapterView, type EvalItem, type EvalResult, type FineTuneResult } from '@tunefleet/contracts';
import type { TunefleetClient } from '@tunefleet/client-sdk';
import { systemClock, TunefleetError } from '@tunefleet/foundation';
import { pullAdapter } from '../../connection/pull-adapter';
import { endLines } from '../../progress/job-view';
import { isFinal, jobMessages } from '../../progress/job-messages';
import { watchJob } from '../../progress/watch-job';
import type { Output } from '../../render/output';
import type { QuickstartData } from './data';
import type { Phases } from './phases';
import { evalRequest, fineTuningRequest, recipe } from './recipe';
import { buildReport, type QuickstartReport } from './report';

export interface RunContext {
  readonly client: TunefleetClient;
  readonly data: QuickstartData;
  /** Where report and adapter go; made when missing. */
  readonly dir: string;
  readonly output: Output;
  readonly phases: Phases;
  readonly signal: AbortSignal;
}

const CANCEL_MS = 5_000;

/**
 * Trains, evaluates and fetches the adapter, all through the public API; writes `report.json`.
 * @throws cancelled when the signal aborts, with the job it was at cancelled; the job's own error when one fails
 */
export async function runRecipe(context: RunContext): Promise<QuickstartReport> {
  const { client, data, dir, output, phases, signal } = context;
  const upload = (filename: string, content: string, purpose: 'fine-tune' | 'evals') => client.files.upload({ filename, content, purpose, signal });
  const [trainingFile, testFile] = await phases.measure('upload', () =>
    Promise.all([upload('quickstart-train.jsonl', data.train, 'fine-tune'), upload('quickstart-test.jsonl', data.test, 'evals')]),
  );

  output.note(`\nTraining ${recipe.baseModel} with ${recipe.training.tuner.kind}, rank ${recipe.training.tuner.r}, on ${data.trainRows} mails`);
  const { jobId, training, adapter } = await phases.measure('train', () => train(context, trainingFile.id));

  output.note(`\nEvaluating base and tuned model on ${data.testRows} mails that neither has seen`);
  const { evalId, evaluation, items } = await phases.measure('eval', () => evaluate(context, adapter.name, testFile.id));

  const adapterDir = join(dir, 'adapter');
  await phases.measure('adapter', async () => {
    // An earlier run's; this folder is the quickstart's own.
    await rm(adapterDir, { recursive: true, force: true });
    await pullAdapter(client, adapter, adapterDir, signal);
  });
  const report = buildReport({
    baseModel: recipe.baseModel,
    tunedModel: adapter.name,
    dataset: { name: recipe.data.name, train: data.trainRows, test: data.testRows },
    jobId,
    evalId,
    adapterDir,
    training,
    evaluation,
    items,
    phases: phases.seconds,
  });
  await writeReport(dir, report);
  return report;
}

async function train(context: RunContext, trainingFile: string): Promise<{ jobId: string; training: FineTuneResult; adapter: AdapterView }> {
  const { client, signal } = context;
  const created = await client.fineTuning.jobs.create(fineTuningRequest(trainingFile), { signal });
  await watch(context, created.id);
  const job = await client.jobs.get(created.id, { signal });
  if (job.adapter_id === null) throw new TunefleetError('invariant', `${job.id} succeeded without an adapter`);
  return { jobId: job.id, training: fineTuneResultSchema.parse(job.result), adapter: await client.adapters.get(job.adapter_id, { signal }) };
}

async function evaluate(context: RunContext, tunedModel: string, testFile: string): Promise<{ evalId: string; evaluation: EvalResult; items: EvalItem[] }> {
  const { client, signal } = context;
  const created = await client.evals.create(evalRequest(tunedModel, testFile), { signal });
  await watch(context, created.id);
  const { id, result } = await client.evals.get(created.id, { signal });
  if (result === null) throw new TunefleetError('invariant', `${id} succeeded without a result`);
  const items: EvalItem[] = [];
  for await (const item of client.evals.items(id, { signal })) items.push(item);
  return { evalId: id, evaluation: result, items };
}

/** Shows a job to its end. One that is left because the user stops is cancelled: nobody would want its result. */
async function watch({ client, output, signal }: RunContext, jobId: string): Promise<void> {
  const { job, ended } = await watchJob({ messages: jobMessages(client, jobId, signal), output, clock: systemClock });
  if (!ended || job === null) {
    await client.jobs.cancel(jobId, { signal: AbortSignal.timeout(CANCEL_MS) }).catch(() => undefined);
    throw new TunefleetError('cancelled', `${jobId} was cancelled`);
  }
  if (job.status !== 'succeeded') throw new TunefleetError('conflict', endLines(job).join('\n'));
}

/** Cancels what an earlier quickstart that was killed has left in the queue: it would run before ours. */
export async function cancelLeftovers(client: TunefleetClient): Promise<void> {
  for await (const job of client.jobs.each({ metadata: { source: 'quickstart' } })) {
    if (!isFinal(job.status)) await client.jobs.cancel(job.id);
  }
}

async function writeReport(dir: string, report: QuickstartReport): Promise<void> {
  await mkdir(dir, { recursive: true });
  const file = join(dir, 'report.json');
  await writeFile(`${file}.${process.pid}.tmp`, `${JSON.stringify(report, null, 2)}\n`);
  await rename(`${file}.${process.pid}.tmp`, file);
}
