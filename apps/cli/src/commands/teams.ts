import { Option, type Command } from 'commander';
import type { ChangeTeam, TeamView } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import { serverCommand } from '../connection/command';
import { positiveNumber } from '../render/arguments';
import { renderTable } from '../render/table';
import { formatBytes } from '../render/text';

/** Undefined: as it is; null: no bound. */
interface TeamOptions {
  readonly weight?: number;
  readonly shareWorkers?: boolean;
  readonly running?: number | null;
  readonly gpuHours?: number | null;
  readonly queued?: number | null;
  readonly storage?: number | null;
}

export function registerTeams(program: Command): void {
  const teams = program.command('teams').description('weights, quotas and what is used of them');
  serverCommand(teams.command('list', { isDefault: true }).description('teams with what they have used of what they may'), async ({ client, output }) => {
    const list = await client.teams.list();
    output.result(list, () => renderTable(COLUMNS, list.data));
  });

  serverCommand<TeamOptions>(
    teams
      .command('set')
      .argument('<name>')
      .option('--weight <number>', 'a team of weight 2 is due twice the GPU time of one of weight 1', positiveNumber)
      .option('--share-workers', 'its small jobs may share a worker with others on the same base model')
      .option('--no-share-workers', 'each of its jobs has a worker to itself')
      .addOption(new Option('--running <jobs>', 'jobs at once; "none": no bound').argParser(bound))
      .addOption(new Option('--gpu-hours <hours>', 'of a calendar month; "none": no bound').argParser(bound))
      .addOption(new Option('--queued <jobs>', 'jobs that wait; "none": no bound').argParser(bound))
      .addOption(new Option('--storage <bytes>', 'of files; "none": no bound').argParser(bound))
      .description("change a team's weight, quotas and whether its jobs share workers; what is not given stays"),
    async ({ client, output, options }, [name = '']) => {
      const team = await client.teams.change(name, changesOf(options));
      output.result(team, () => renderTable(COLUMNS, [team]));
    },
  );
}

export function changesOf({ weight, shareWorkers, running, gpuHours, queued, storage }: TeamOptions): ChangeTeam {
  const all = { weight, shares_workers: shareWorkers, running_jobs: running, gpu_hours_per_month: gpuHours, queued_jobs: queued, storage_bytes: storage };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

function bound(text: string): number | null {
  if (text === 'none') return null;
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value < 0) throw new TunefleetError('invalid_input', `expected a number from 0 up, or "none", got "${text}"`);
  return value;
}

const COLUMNS = [
  { header: 'team', value: (team: TeamView) => team.name },
  { header: 'weight', value: (team: TeamView) => String(team.weight), align: 'right' },
  { header: 'shares workers', value: (team: TeamView) => (team.shares_workers ? 'yes' : 'no') },
  { header: 'running', value: ({ usage, quotas }: TeamView) => ofBound(String(usage.running_jobs), quotas.running_jobs, String), align: 'right' },
  { header: 'queued', value: ({ usage, quotas }: TeamView) => ofBound(String(usage.queued_jobs), quotas.queued_jobs, String), align: 'right' },
  { header: 'GPU-hours this month', value: ({ usage, quotas }: TeamView) => ofBound(usage.gpu_hours_month.toFixed(2), quotas.gpu_hours_per_month, String), align: 'right' },
  { header: 'decayed', value: ({ usage }: TeamView) => usage.gpu_hours_decayed.toFixed(2), align: 'right' },
  { header: 'files', value: ({ usage, quotas }: TeamView) => ofBound(formatBytes(usage.storage_bytes), quotas.storage_bytes, formatBytes), align: 'right' },
] as const;

function ofBound(used: string, limit: number | null, show: (value: number) => string): string {
  return limit === null ? used : `${used} of ${show(limit)}`;
}
