import { createReadStream } from 'node:fs';
import { parseRow, referenceOf, splitLines, type DatasetRow } from '@tunefleet/domain-datasets';
import { TunefleetError } from '@tunefleet/foundation';

export interface EvalRow {
  /** Line number in the file, from 1. */
  readonly number: number;
  readonly row: DatasetRow;
  readonly reference: string;
}

/**
 * The first `limit` rows of a JSONL file, checked.
 * @throws TunefleetError `invalid_input` with the row number for a bad row, and for a file without rows
 */
export async function readRows(path: string, limit = Infinity): Promise<EvalRow[]> {
  const rows: EvalRow[] = [];
  for await (const { number, text, fault } of splitLines(createReadStream(path, { highWaterMark: 1 << 18 }))) {
    if (rows.length >= limit) break;
    const parsed = text === null ? null : parseRow(text, number);
    if (parsed === null || !parsed.ok) throw badRow(parsed?.problems[0]?.message ?? `row ${number}: ${fault}`);
    rows.push({ number, row: parsed.row, reference: referenceOf(parsed.row) });
  }
  if (rows.length === 0) throw badRow('the file has no rows');
  return rows;
}

export function badRow(message: string, details: Readonly<Record<string, unknown>> = {}, reason = 'invalid_file'): TunefleetError {
  return new TunefleetError('invalid_input', `file: ${message}`, { reason, param: 'file', details });
}
