import type { Command } from 'commander';
import type { RetentionKind, RetentionReport } from '@tunefleet/contracts';
import { defaultRetention, parseRetention, type RetentionRule } from '@tunefleet/domain-jobs';
import { serverCommand } from '../connection/command';
import { renderTable } from '../render/table';
import { formatBytes, formatCount } from '../render/text';

interface RetentionOptions {
  readonly rule?: readonly string[];
  readonly apply?: boolean;
  readonly dryRun?: boolean;
}

export function registerRetention(program: Command): void {
  const defaults = defaultRetention.map(({ kind, olderThanMs, keep }) => `${kind} ${age(olderThanMs / 1000)}${keep > 0 ? `, all but the last ${keep}` : ''}`).join('; ');
  serverCommand<RetentionOptions>(
    program
      .command('retention')
      .option('--rule <kind=age>', 'only this kind, such as events=90d or checkpoints=30d:2 (the last 2 of each job stay); repeatable', (text, before: readonly string[] | undefined) => [...(before ?? []), text])
      .option('--dry-run', 'only say what would go (the default)')
      .option('--apply', 'remove it')
      .description(`say, or remove, what is old and nobody needs; without rules: ${defaults}`),
    async ({ client, output, options, signal }) => {
      const apply = options.apply === true && options.dryRun !== true;
      const rules = options.rule === undefined ? undefined : rulesOf(parseRetention(options.rule.join(',')));
      let report = await client.retention.run({ apply, rules, signal });
      // What a request has no time for is left to the next one.
      while (apply && !report.complete) report = added(report, await client.retention.run({ apply, rules, signal }));
      output.result(report, () => `${renderTable(COLUMNS, report.data)}\n${closing(report)}`);
    },
  );
}

function rulesOf(rules: readonly RetentionRule[]): Partial<Record<RetentionKind, { older_than_seconds: number; keep: number }>> {
  return Object.fromEntries(rules.map(({ kind, olderThanMs, keep }) => [kind, { older_than_seconds: olderThanMs / 1000, keep }]));
}

/** Two reports on the same rules as one. */
export function added(before: RetentionReport, after: RetentionReport): RetentionReport {
  return {
    ...after,
    data: after.data.map((row) => {
      const same = before.data.find(({ kind }) => kind === row.kind);
      return { ...row, rows: row.rows + (same?.rows ?? 0), bytes: row.bytes + (same?.bytes ?? 0) };
    }),
  };
}

function closing({ applied, data }: RetentionReport): string {
  const bytes = formatBytes(data.reduce((sum, row) => sum + row.bytes, 0));
  if (applied) return `Removed: ${bytes}.`;
  const later = data.some(({ kind, rows }) => kind === 'checkpoints' && rows > 0) ? ' The files of checkpoints are freed as artifacts once their checkpoints are gone.' : '';
  return `A dry run: nothing was removed. --apply would free ${bytes}.${later}`;
}

function age(seconds: number): string {
  return seconds % 86_400 === 0 ? `${seconds / 86_400} d` : `${Math.round(seconds / 360) / 10} h`;
}

const COLUMNS = [
  { header: 'kind', value: (row: RetentionReport['data'][number]) => row.kind },
  { header: 'older than', value: (row: RetentionReport['data'][number]) => age(row.older_than_seconds), align: 'right' },
  { header: 'kept per job', value: (row: RetentionReport['data'][number]) => (row.keep === 0 ? '' : String(row.keep)), align: 'right' },
  { header: 'rows', value: (row: RetentionReport['data'][number]) => formatCount(row.rows), align: 'right' },
  { header: 'size', value: (row: RetentionReport['data'][number]) => formatBytes(row.bytes), align: 'right' },
] as const;
