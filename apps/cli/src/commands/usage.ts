import type { Command } from 'commander';
import type { UsageDay } from '@tunefleet/contracts';
import { serverCommand } from '../connection/command';
import { renderTable } from '../render/table';

interface UsageOptions {
  readonly from?: string;
  readonly to?: string;
  readonly team?: string;
  readonly byDay?: boolean;
}

export function registerUsage(program: Command): void {
  serverCommand<UsageOptions>(
    program
      .command('usage')
      .option('--from <day>', 'first day, UTC, such as 2026-11-01 (default: 30 days ago)')
      .option('--to <day>', 'last day (default: today)')
      .option('--team <name>', 'one team only')
      .option('--by-day', 'a line per day and team instead of one per team')
      .description('GPU time of the teams, and how much of it was lost to failures'),
    async ({ client, output, options }) => {
      const { from, to, team, byDay } = options;
      const report = await client.usage.report({ from, to, team });
      const columns = byDay === true ? [{ header: 'day', value: (row: UsageDay) => row.day }, ...COLUMNS] : COLUMNS;
      output.result(report, () => `${renderTable(columns, byDay === true ? report.data : totals(report.data))}\n${report.from} to ${report.to} (UTC)`);
    },
  );
}

/** One row per team; an attempt that ran over midnight counts on each of its days. */
export function totals(rows: readonly UsageDay[]): UsageDay[] {
  const byTeam = new Map<string, UsageDay>();
  for (const row of rows) {
    const sum = byTeam.get(row.team);
    byTeam.set(
      row.team,
      sum === undefined
        ? row
        : { ...sum, gpu_seconds: sum.gpu_seconds + row.gpu_seconds, wasted_gpu_seconds: sum.wasted_gpu_seconds + row.wasted_gpu_seconds, attempts: sum.attempts + row.attempts },
    );
  }
  return [...byTeam.values()].sort((a, b) => b.gpu_seconds - a.gpu_seconds);
}

const COLUMNS = [
  { header: 'team', value: (row: UsageDay) => row.team },
  { header: 'GPU-hours', value: (row: UsageDay) => (row.gpu_seconds / 3600).toFixed(2), align: 'right' },
  { header: 'lost', value: (row: UsageDay) => (row.gpu_seconds === 0 ? '' : `${((100 * row.wasted_gpu_seconds) / row.gpu_seconds).toFixed(1)} %`), align: 'right' },
  { header: 'attempts', value: (row: UsageDay) => String(row.attempts), align: 'right' },
] as const;
