import type { Command } from 'commander';
import type { JobSummary, MetricPoint } from '@tunefleet/contracts';
import type { TunefleetClient } from '@tunefleet/client-sdk';
import { serverCommand, type ServerContext } from '../connection/command';
import { watchUntilEnd } from '../progress/watch-until-end';
import { wholeNumber } from '../render/arguments';
import { EXIT } from '../render/exit-code';
import { renderTable } from '../render/table';
import { waitingText } from '../render/waiting';
import { formatTime, oneLine } from '../render/text';
import { registerJobControls } from './job-controls';
import { describeJob } from './job-detail';
import { addCreateOptions, createJobRequest, fileOrPath, type CreateJobOptions } from './jobs-create';

export function registerJobs(program: Command): void {
  const jobs = program.command('jobs').description('fine-tune jobs (and evals: `--kind eval`)');

  serverCommand<CreateJobOptions>(addCreateOptions(jobs.command('create').description('start a fine-tune job')), createJob);

  serverCommand<{ readonly kind?: JobSummary['kind']; readonly status?: JobSummary['status']; readonly limit: number }>(
    jobs
      .command('list')
      .option('--kind <kind>', 'only these: fine-tune or eval')
      .option('--status <status>', 'only these')
      .option('--limit <count>', 'newest first, at most so many', wholeNumber(1, 100), 20)
      .description('jobs, newest first'),
    async ({ client, output, options }) => {
      const list = await client.jobs.list({ kind: options.kind, status: options.status, limit: options.limit });
      output.result(list, () => renderTable(JOB_COLUMNS, list.data));
    },
  );

  serverCommand(jobs.command('show').alias('get').argument('<id>').description('all that is on record about a job'), async ({ client, output }, [id = '']) => {
    const job = await client.jobs.get(id);
    output.result(job, () => describeJob(job));
  });

  serverCommand(jobs.command('watch').argument('<id>').description('show a job live until it ends'), (context, [id = '']) => watchUntilEnd(context, id));

  serverCommand(jobs.command('cancel').argument('<id>').description('stop a job for good'), async ({ client, output }, [id = '']) => {
    const job = await client.jobs.cancel(id);
    output.result(job, () => `${job.id} ${job.status}`);
  });

  registerJobControls(jobs);

  serverCommand<{ readonly limit: number }>(
    jobs
      .command('logs')
      .argument('<id>')
      .option('--limit <count>', 'the last so many', wholeNumber(1, 10_000), 1000)
      .description('what a job said, oldest first'),
    async ({ client, output, options }, [id = '']) => {
      for (const event of (await newestEvents(client, id, options.limit)).reverse()) {
        output.item(event, () => `${formatTime(event.created_at)}  ${event.level.padEnd(5)}  ${oneLine(event.message)}`);
      }
    },
  );

  serverCommand<{ readonly name?: string }>(
    jobs
      .command('metrics')
      .argument('<id>')
      .option('--name <name>', 'only this metric')
      .description('measured values by step'),
    async ({ client, output, options }, [id = '']) => {
      const points = await allMetrics(client, id, options.name);
      output.result(points, () => metricsTable(points));
    },
  );
}

async function createJob(context: ServerContext<CreateJobOptions>): Promise<0 | 1 | 130> {
  const { client, output, options, signal } = context;
  const training = await uploadIfLocal(context, options.file);
  const validation = options.validationFile === undefined ? undefined : await uploadIfLocal(context, options.validationFile);
  signal.throwIfAborted();
  const job = await client.fineTuning.jobs.create(createJobRequest(options, training, validation));
  if (options.watch === true) {
    output.note(`${job.id} created`);
    return watchUntilEnd(context, job.id);
  }
  output.result(job, () => `${job.id} ${job.status}\nwatch it: tunefleet jobs watch ${job.id}`);
  return EXIT.ok;
}

async function uploadIfLocal({ client, output, signal }: ServerContext<object>, text: string): Promise<string> {
  const given = fileOrPath(text);
  if ('id' in given) return given.id;
  const stored = await client.files.upload({ path: given.path, purpose: 'fine-tune', signal });
  output.note(`${given.path} uploaded as ${stored.id}`);
  return stored.id;
}

const JOB_COLUMNS = [
  { header: 'id', value: (job: JobSummary) => job.id },
  { header: 'kind', value: (job: JobSummary) => job.kind },
  { header: 'status', value: (job: JobSummary) => job.status },
  { header: 'model', value: (job: JobSummary) => job.base_model },
  { header: 'step', value: (job: JobSummary) => `${job.step}/${job.total_steps ?? '?'}`, align: 'right' },
  { header: 'created', value: (job: JobSummary) => formatTime(job.created_at) },
  { header: 'waiting', value: waitingText },
] as const;

async function newestEvents(client: TunefleetClient, jobId: string, limit: number) {
  const events = [];
  for (let after: string | undefined; events.length < limit; ) {
    const page = await client.jobs.events(jobId, { limit: Math.min(100, limit - events.length), after });
    events.push(...page.data);
    after = page.data.at(-1)?.id;
    if (!page.has_more || after === undefined) break;
  }
  return events;
}

async function allMetrics(client: TunefleetClient, jobId: string, name: string | undefined): Promise<MetricPoint[]> {
  const points: MetricPoint[] = [];
  for (let sinceStep: number | undefined; ; ) {
    const page = await client.jobs.metrics(jobId, { name, sinceStep, limit: 10_000 });
    points.push(...page.data);
    sinceStep = page.data.at(-1)?.step;
    if (!page.has_more || sinceStep === undefined) return points;
  }
}

/** A row per step, a column per metric. */
function metricsTable(points: readonly MetricPoint[]): string {
  const names = [...new Set(points.map((point) => point.name))].sort();
  const rows = new Map<number, Map<string, number>>();
  for (const { step, name, value } of points) {
    const row = rows.get(step) ?? new Map<string, number>();
    rows.set(step, row.set(name, value));
  }
  return renderTable(
    [
      { header: 'step', value: ([step]: readonly [number, Map<string, number>]) => String(step), align: 'right' },
      ...names.map((name) => ({
        header: name,
        value: ([, values]: readonly [number, Map<string, number>]) => values.get(name)?.toPrecision(6) ?? '',
        align: 'right' as const,
      })),
    ],
    [...rows],
  );
}
