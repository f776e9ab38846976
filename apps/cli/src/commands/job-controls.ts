import type { Command } from 'commander';
import type { CloneJob, JobDetail } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import { serverCommand } from '../connection/command';
import { keyValue, wholeNumber } from '../render/arguments';

const PRIORITY_MAX = 100;

/** What one may do to a job that is there already. */
export function registerJobControls(jobs: Command): void {
  serverCommand(jobs.command('pause').argument('<id>').description('put a job aside; a running one writes a checkpoint first'), async ({ client, output }, [id = '']) => {
    const job = await client.jobs.pause(id);
    output.result(job, () => (job.stop_requested === 'paused' ? `${job.id} is paused as soon as it has written a checkpoint` : `${job.id} ${job.status}`));
  });

  serverCommand(jobs.command('resume').argument('<id>').description('let a paused job go on from its last checkpoint'), async ({ client, output }, [id = '']) => {
    const job = await client.jobs.resume(id);
    output.result(job, () => `${job.id} ${job.stop_requested === 'resumed' ? 'goes on' : job.status}`);
  });

  serverCommand(
    jobs
      .command('priority')
      .argument('<id>')
      .argument('<number>', `${-PRIORITY_MAX} to ${PRIORITY_MAX}; put -- before a negative one`, (text) => String(wholeNumber(-PRIORITY_MAX, PRIORITY_MAX)(text)))
      .description('let a waiting job start earlier or later'),
    async ({ client, output }, [id = '', priority = '']) => {
      const job = await client.jobs.setPriority(id, Number(priority));
      output.result(job, () => `${job.id} has priority ${job.priority}`);
    },
  );

  serverCommand<{ readonly set?: Readonly<Record<string, string>> }>(
    jobs
      .command('clone')
      .argument('<id>')
      .option('--set <field=value>', 'what the copy has instead, as in the API; JSON, or plain text; dots for what is inside; repeatable', keyValue)
      .addHelpText('after', '\nExample: tunefleet jobs clone ftjob-… --set seed=7 --set hyperparameters.n_epochs=2')
      .description('a new job with the same request'),
    async ({ client, output, options }, [id = '']) => {
      const job = await client.jobs.clone(id, changesOf(options.set ?? {}));
      output.result(job, () => newJob(job));
    },
  );

  serverCommand(jobs.command('retry').argument('<id>').description('a new job with the request of one that has failed or was cancelled'), async ({ client, output }, [id = '']) => {
    const job = await client.jobs.retry(id);
    output.result(job, () => newJob(job));
  });
}

function newJob(job: JobDetail): string {
  return `${job.id} ${job.status}\nwatch it: tunefleet jobs watch ${job.id}`;
}

/** `a.b=1` as `{a: {b: 1}}`. @throws invalid_input when a field is both a value and has parts */
export function changesOf(pairs: Readonly<Record<string, string>>): CloneJob {
  const changes: Record<string, unknown> = {};
  for (const [path, text] of Object.entries(pairs)) {
    const names = path.split('.');
    const last = names.pop() ?? '';
    let inner = changes;
    for (const name of names) {
      const next = (inner[name] ??= {});
      if (typeof next !== 'object' || next === null || Array.isArray(next)) throw new TunefleetError('invalid_input', `--set ${path}: ${name} has a value already`);
      inner = next as Record<string, unknown>;
    }
    inner[last] = valueOf(text);
  }
  return changes;
}

function valueOf(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}
