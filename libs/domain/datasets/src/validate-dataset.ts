import { createHash } from 'node:crypto';
import { TunefleetError } from '@tunefleet/foundation';
import { LINE_BYTES_MAX, type Line } from './lines';
import { parseRow, type RowParser } from './parse-row';
import { problemAt, type DatasetProblem } from './problems';
import type { AnyDatasetRow, DatasetFormat, DatasetRow } from './rows';

/** Problems kept in full; the rest are counted. */
export const PROBLEMS_KEPT = 100;
export const MIN_EXAMPLES_DEFAULT = 10;
const ROWS_MAX = 10_000_000;

export interface ValidateOptions<Row extends AnyDatasetRow = DatasetRow> {
  /** Fewest good rows; default 10. Evaluation files may ask for 1. */
  readonly minExamples?: number;
  /** Row hashes of the training file, to count validation rows that are in it too. */
  readonly trainingHashes?: ReadonlySet<string>;
  /** Called with every good row, in order. */
  readonly onRow?: (row: Row, line: number) => void;
  /** What rows must be; default: chat or prompt/completion rows. */
  readonly parse?: RowParser<Row>;
}

export interface DatasetReport {
  readonly ok: boolean;
  /** Null when no row is good. */
  readonly format: DatasetFormat | null;
  /** Good rows. */
  readonly examples: number;
  /** The first 100. */
  readonly problems: readonly DatasetProblem[];
  /** All of them. */
  readonly problemCount: number;
  /** Good rows that repeat an earlier one exactly; a hint, not an error. */
  readonly duplicates: number;
  /** Good rows that are also in the training file; a hint, not an error. */
  readonly overlap: number;
  /** Over the good rows in order: equal for files that differ in spacing only. */
  readonly contentHash: string;
  /** For `trainingHashes` of the validation file's check. */
  readonly hashes: ReadonlySet<string>;
}

/** Checks a whole file in one pass; memory holds one hash per row. Never throws for what the file contains. */
export async function validateDataset<Row extends AnyDatasetRow = DatasetRow>(lines: AsyncIterable<Line> | Iterable<Line>, options: ValidateOptions<Row> = {}): Promise<DatasetReport> {
  const { minExamples = MIN_EXAMPLES_DEFAULT, trainingHashes, onRow } = options;
  // Rows are of the default type where no parser was given.
  const parse = options.parse ?? (parseRow as RowParser<AnyDatasetRow> as RowParser<Row>);
  const problems: DatasetProblem[] = [];
  let problemCount = 0;
  const report = (found: readonly DatasetProblem[]): void => {
    problemCount += found.length;
    problems.push(...found.slice(0, Math.max(0, PROBLEMS_KEPT - problems.length)));
  };
  const hashes = new Set<string>();
  const content = createHash('sha256');
  let format: { readonly name: DatasetFormat; readonly line: number } | null = null;
  let examples = 0;
  let duplicates = 0;
  let overlap = 0;
  for await (const { number, text, fault } of lines) {
    if (text === null) {
      report([problemAt(number, fault ?? 'unreadable', faultText(fault))]);
      continue;
    }
    const parsed = parse(text, number);
    const name: DatasetFormat | null = parsed.ok ? parsed.row.format : parsed.format;
    if (name !== null) format ??= { name, line: number };
    if (name !== null && format !== null && name !== format.name) {
      report([problemAt(number, 'mixed_formats', `is a ${name} row but row ${format.line} is a ${format.name} row; keep one format per file`)]);
      continue;
    }
    if (!parsed.ok) {
      report(parsed.problems);
      continue;
    }
    examples += 1;
    if (examples > ROWS_MAX) throw new TunefleetError('invalid_input', `the file has more than ${ROWS_MAX} rows; split it`, { reason: 'too_many_examples' });
    if (hashes.has(parsed.hash)) duplicates += 1;
    if (trainingHashes?.has(parsed.hash)) overlap += 1;
    hashes.add(parsed.hash);
    content.update(parsed.hash);
    onRow?.(parsed.row, number);
  }
  if (examples < minExamples) report([problemAt(0, 'too_few_examples', `has ${examples} good row${examples === 1 ? '' : 's'}, at least ${minExamples} are needed; add rows${problemCount > 0 ? ' or mend the ones named above' : ''}`)]);
  return { ok: problemCount === 0, format: format?.name ?? null, examples, problems, problemCount, duplicates, overlap, contentHash: content.digest('hex'), hashes };
}

function faultText(fault: Line['fault']): string {
  return fault === 'line_too_long' ? `is longer than ${LINE_BYTES_MAX} bytes; shorten it` : 'is not UTF-8 text; save the file as UTF-8';
}

/**
 * The report as the error a request or job ends with.
 * @param param the request field, e.g. `training_file`
 */
export function datasetError(report: DatasetReport, param: string): TunefleetError {
  const first = report.problems[0];
  const more = report.problemCount - 1;
  const rest = more > 0 ? ` (and ${more} more problem${more === 1 ? '' : 's'})` : '';
  return new TunefleetError('invalid_input', `${param}: ${first?.message ?? 'the file is not valid'}${rest}`, {
    reason: first?.rule === 'too_few_examples' && report.problemCount === 1 ? 'too_few_examples' : `invalid_${param}`,
    param,
    details: { problems: report.problems, problemCount: report.problemCount },
  });
}
