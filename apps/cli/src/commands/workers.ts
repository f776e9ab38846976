import type { Command } from 'commander';
import type { WorkerView } from '@tunefleet/contracts';
import type { TunefleetClient } from '@tunefleet/client-sdk';
import { sleep, TunefleetError } from '@tunefleet/foundation';
import { serverCommand } from '../connection/command';
import { wholeNumber } from '../render/arguments';
import { renderTable } from '../render/table';
import { formatBytes, formatTime } from '../render/text';
import { registerWorkerTokens } from './worker-tokens';

const DEADLINE_SECONDS_MAX = 30 * 86_400;

export function registerWorkers(program: Command): void {
  const workers = program.command('workers').description('machines that run jobs');
  serverCommand(workers.command('list', { isDefault: true }).description('workers with their device and state'), async ({ client, output }) => {
    const list = await client.workers.list();
    output.result(list, () => renderTable(COLUMNS, list.data));
  });

  serverCommand<{ readonly reason?: string }>(
    workers.command('cordon').argument('<id or name>').option('--reason <text>', 'shown in the list').description('give a worker no new jobs; what it runs goes on'),
    async ({ client, output, options }, [which = '']) => {
      const worker = await client.workers.cordon(await idOf(client, which), options.reason);
      output.result(worker, () => stateLine(worker));
    },
  );

  serverCommand<{ readonly move?: boolean; readonly deadline?: number; readonly wait?: boolean }>(
    workers
      .command('drain')
      .argument('<id or name>')
      .option('--move', 'let its job write a checkpoint and go on elsewhere at once, instead of waiting for its end')
      .option('--deadline <seconds>', 'wait so long at the most, then move the job', wholeNumber(0, DEADLINE_SECONDS_MAX))
      .option('--wait', 'return when it is empty')
      .description('empty a worker, to take it away'),
    async ({ client, output, options, signal }, [which = '']) => {
      const asked = await client.workers.drain(await idOf(client, which), {
        mode: options.move === true ? 'move' : 'wait',
        ...(options.deadline === undefined ? {} : { deadline_seconds: options.deadline }),
      });
      const worker = options.wait === true ? await untilDrained(client, asked, signal) : asked;
      output.result(worker, () => stateLine(worker));
    },
  );

  serverCommand<{ readonly reason?: string }>(
    workers.command('revoke').argument('<id or name>').option('--reason <text>', 'shown in the list').description('bar a worker for ever; its job goes on elsewhere'),
    async ({ client, output, options }, [which = '']) => {
      const revoked = await client.workers.revoke(await idOf(client, which), options.reason);
      output.result(revoked, () => `${which} revoked, ${releasedText(revoked.released_jobs)}`);
    },
  );
  registerWorkerTokens(workers);

  for (const name of ['uncordon', 'undrain'] as const) {
    serverCommand(workers.command(name).argument('<id or name>').description('give a worker jobs again'), async ({ client, output }, [which = '']) => {
      const worker = await client.workers.uncordon(await idOf(client, which));
      output.result(worker, () => stateLine(worker));
    });
  }
}

function releasedText(jobs: number): string {
  if (jobs === 0) return 'it ran nothing';
  return jobs === 1 ? 'its job goes on elsewhere from the last checkpoint' : `its ${jobs} jobs go on elsewhere from their last checkpoints`;
}

const COLUMNS = [
  { header: 'name', value: (worker: WorkerView) => worker.name },
  { header: 'status', value: stateOf },
  { header: 'device', value: (worker: WorkerView) => `${worker.device.kind} ${worker.device.name}` },
  { header: 'memory free', value: (worker: WorkerView) => formatBytes(worker.device.memory_bytes_free), align: 'right' },
  { header: 'jobs', value: (worker: WorkerView) => (worker.slots === 1 ? String(worker.running_jobs) : `${worker.running_jobs} of ${worker.slots}`), align: 'right' },
  { header: 'labels', value: (worker: WorkerView) => Object.entries(worker.labels).map(([name, value]) => `${name}=${value}`).join(' ') },
  { header: 'model in memory', value: (worker: WorkerView) => worker.model_in_memory ?? '' },
  { header: 'seen', value: (worker: WorkerView) => formatTime(worker.last_seen_at) },
] as const;

export function stateOf({ status, cordoned, cordon_reason: reason, drain }: WorkerView): string {
  if (drain !== null) {
    const how = drain.state === 'drained' || drain.mode === 'move' ? '' : ` (waits for its job${drain.deadline === null ? '' : ` until ${formatTime(drain.deadline)}`})`;
    return `${status}, ${drain.state}${how}`;
  }
  if (!cordoned) return status;
  return reason === null ? `${status}, cordoned` : `${status}, cordoned (${reason})`;
}

const POLL_MS = 1_000;

/** @throws conflict when somebody takes the drain back meanwhile */
async function untilDrained(client: TunefleetClient, asked: WorkerView, signal: AbortSignal): Promise<WorkerView> {
  for (let worker = asked; ; ) {
    if (worker.drain === null) throw new TunefleetError('conflict', `${worker.name} was given jobs again before it was empty`);
    if (worker.drain.state === 'drained') return worker;
    await sleep(POLL_MS, signal);
    signal.throwIfAborted();
    worker = (await client.workers.list({ signal })).data.find(({ id }) => id === asked.id) ?? worker;
  }
}

function stateLine(worker: WorkerView): string {
  return `${worker.name} ${stateOf(worker)}`;
}

/** Names are for people, and may be used again by a later worker; ids are unique. */
async function idOf(client: TunefleetClient, which: string): Promise<string> {
  const { data } = await client.workers.list();
  if (data.some(({ id }) => id === which)) return which;
  const named = data.filter(({ name }) => name === which);
  const present = named.length > 1 ? named.filter(({ status }) => status !== 'offline') : named;
  const [only] = present;
  if (only !== undefined && present.length === 1) return only.id;
  const known = data.map(({ id, name, status }) => `${name} ${id} (${status})`).join(', ');
  throw new TunefleetError('not_found', `${present.length === 0 ? 'no worker is' : `${present.length} workers are`} called "${which}"; there are: ${known || 'none'}`);
}
