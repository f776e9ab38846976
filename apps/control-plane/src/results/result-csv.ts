import type { MetricPointRecord } from '@tunefleet/ports';

/** Columns that clients of OpenAI's result files look for, present also when nothing was measured. */
const KNOWN_COLUMNS = ['train_loss', 'train_accuracy', 'valid_loss', 'valid_mean_token_accuracy'];

/**
 * The metric points of a job as CSV: a row per step, a column per metric, empty cells where nothing was measured.
 * @param points by step
 */
export function resultCsv(points: readonly MetricPointRecord[]): string {
  const others = new Set(points.map((point) => point.name).filter((name) => !KNOWN_COLUMNS.includes(name)));
  const columns = [...KNOWN_COLUMNS, ...[...others].sort()];
  const rows = new Map<number, Map<string, number>>();
  for (const { step, name, value } of points) {
    const row = rows.get(step) ?? new Map<string, number>();
    rows.set(step, row.set(name, value));
  }
  const lines = [...rows].map(([step, values]) => [step, ...columns.map((column) => values.get(column) ?? '')].join(','));
  return [['step', ...columns.map(quoted)].join(','), ...lines].map((line) => `${line}\n`).join('');
}

/** @see RFC 4180, section 2 */
function quoted(name: string): string {
  return /[",\r\n]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name;
}
