import { Option, type Command } from 'commander';
import type { PutQuota, TeamView } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import { serverCommand } from '../connection/command';
import { positiveNumber } from '../render/arguments';
import { renderTable } from '../render/table';
import { formatBytes } from '../render/text';

/** Undefined: as it is; null: no bound. */
interface QuotaOptions {
  readonly weight?: number;
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

  serverCommand<QuotaOptions>(
    teams
      .command('set')
      .argument('<name>')
      .option('--weight <number>', 'a team of weight 2 is due twice the GPU time of one of weight 1', positiveNumber)
      .addOption(new Option('--running <jobs>', 'jobs at once; "none": no bound').argParser(bound))
      .addOption(new Option('--gpu-hours <hours>', 'of a calendar month; "none": no bound').argParser(bound))
      .addOption(new Option('--queued <jobs>', 'jobs that wait; "none": no bound').argParser(bound))
      .addOption(new Option('--storage <bytes>', 'of files; "none": no bound').argParser(bound))
      .description("change a team's weight and quotas; what is not given stays"),
    async ({ client, output, options }, [name = '']) => {
      const team = await client.teams.setQuota(name, quotaOf(await client.teams.get(name), options));
      output.result(team, () => renderTable(COLUMNS, [team]));
    },
  );
}

export function quotaOf({ weight, quotas }: Pick<TeamView, 'weight' | 'quotas'>, options: QuotaOptions): PutQuota {
  const bounds = {
    running_jobs: options.running === undefined ? quotas.running_jobs : options.running,
    gpu_hours_per_month: options.gpuHours === undefined ? quotas.gpu_hours_per_month : options.gpuHours,
    queued_jobs: options.queued === undefined ? quotas.queued_jobs : options.queued,
    storage_bytes: options.storage === undefined ? quotas.storage_bytes : options.storage,
  };
  return { weight: options.weight ?? weight, ...Object.fromEntries(Object.entries(bounds).filter(([, value]) => value !== null)) };
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
  { header: 'running', value: ({ usage, quotas }: TeamView) => ofBound(String(usage.running_jobs), quotas.running_jobs, String), align: 'right' },
  { header: 'queued', value: ({ usage, quotas }: TeamView) => ofBound(String(usage.queued_jobs), quotas.queued_jobs, String), align: 'right' },
  { header: 'GPU-hours this month', value: ({ usage, quotas }: TeamView) => ofBound(usage.gpu_hours_month.toFixed(2), quotas.gpu_hours_per_month, String), align: 'right' },
  { header: 'decayed', value: ({ usage }: TeamView) => usage.gpu_hours_decayed.toFixed(2), align: 'right' },
  { header: 'files', value: ({ usage, quotas }: TeamView) => ofBound(formatBytes(usage.storage_bytes), quotas.storage_bytes, formatBytes), align: 'right' },
] as const;

function ofBound(used: string, limit: number | null, show: (value: number) => string): string {
  return limit === null ? used : `${used} of ${show(limit)}`;
}
