import { renderFields, renderTable } from '../../render/table';
import { clip, formatCount, formatDuration, formatPercent } from '../../render/text';
import type { QuickstartReport } from './report';

const EXAMPLE_CHARACTERS = 220;

/** What the quickstart prints at its end. @param mail text of the example's mail; null when there is no example */
export function renderSummary(report: QuickstartReport, mail: string | null, kept: boolean): string {
  return [accuracyTable(report), figures(report), phaseTable(report), ...exampleLines(report, mail), whereAndNext(report, kept)].join('\n\n');
}

function accuracyTable(report: QuickstartReport): string {
  const { base, tuned } = report.eval_detail;
  return renderTable(
    [
      { header: '', value: (row) => row.name },
      { header: 'model', value: (row) => row.entry.model },
      { header: 'accuracy', value: (row) => formatPercent(row.entry.accuracy), align: 'right' },
      { header: '95 % interval', value: (row) => row.entry.interval.map((bound) => (bound * 100).toFixed(1)).join(' – '), align: 'right' },
      { header: 'n', value: () => formatCount(report.eval.n), align: 'right' },
    ],
    [
      { name: 'base', entry: base },
      { name: 'tuned', entry: tuned },
    ],
  );
}

function figures(report: QuickstartReport): string {
  const { train, dataset } = report;
  return renderFields([
    ['data', `${dataset.name}: ${formatCount(dataset.train)} to train, ${formatCount(dataset.test)} held out`],
    ['training loss', `${train.loss_first.toFixed(4)} at the first step, ${train.loss_last.toFixed(4)} at the last (${formatCount(train.steps)} steps)`],
    ['speed', `${formatCount(train.tokens_per_s)} tokens/s over ${formatCount(train.tokens)} tokens, ${report.compute_dtype}`],
    ['peak memory', `${formatCount(train.peak_rss_mb)} MiB`],
  ]);
}

function phaseTable(report: QuickstartReport): string {
  const rows = [...Object.entries(report.phases), ['total', report.seconds_total] as const];
  return renderTable(
    [
      { header: 'phase', value: ([name]) => name },
      { header: 'wall time', value: ([, seconds]) => formatDuration(seconds), align: 'right' },
    ],
    rows,
  );
}

function exampleLines(report: QuickstartReport, mail: string | null): string[] {
  const { example } = report;
  if (example === null) return [];
  const fields = renderFields([
    ['mail', mail === null ? null : `“${clip(mail, EXAMPLE_CHARACTERS)}”`],
    ['it is', example.reference],
    ['before', `“${clip(example.before, EXAMPLE_CHARACTERS)}”`],
    ['after', `“${clip(example.after, EXAMPLE_CHARACTERS)}”`],
  ]);
  return [`One held-out mail (row ${example.row}), answered in words by both\n${fields}`];
}

function whereAndNext(report: QuickstartReport, kept: boolean): string {
  const start = kept ? [] : ['  npm start                                   # the service again; leave it running'];
  return [
    `The adapter (PEFT format) is in ${report.adapter_dir}`,
    '',
    'Next:',
    ...start,
    `  npm run tunefleet -- generate --model ${report.base_model} --adapter ${report.adapter_dir} --prompt "You won a prize, click here"`,
    `  npm run tunefleet -- jobs get ${report.job_id}`,
    ...(kept ? ['  npm run tunefleet -- adapters list'] : []),
  ].join('\n');
}
