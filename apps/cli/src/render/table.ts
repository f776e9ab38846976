import { oneLine } from './text';

export interface Column<Row> {
  readonly header: string;
  readonly value: (row: Row) => string;
  readonly align?: 'left' | 'right';
}

/** Columns as wide as their widest cell, two spaces apart; no rows give the headers only. */
export function renderTable<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const cells = rows.map((row) => columns.map((column) => oneLine(column.value(row)) || '-'));
  const widths = columns.map((column, index) => Math.max(column.header.length, ...cells.map((row) => width(row[index] ?? ''))));
  const line = (texts: readonly string[]): string =>
    texts
      .map((text, index) => pad(text, widths[index] ?? 0, columns[index]?.align ?? 'left'))
      .join('  ')
      .trimEnd();
  return [line(columns.map((column) => column.header.toUpperCase())), ...cells.map(line)].join('\n');
}

/** "name   value" lines, the names padded to one width. Pairs without a value are left out. */
export function renderFields(fields: readonly (readonly [name: string, value: string | null | undefined])[]): string {
  const shown = fields.flatMap(([name, value]) => (value === null || value === undefined || value === '' ? [] : [[name, value] as const]));
  const widest = Math.max(0, ...shown.map(([name]) => name.length));
  return shown.map(([name, value]) => `${name.padEnd(widest)}  ${oneLine(value)}`).join('\n');
}

function pad(text: string, size: number, align: 'left' | 'right'): string {
  const filling = ' '.repeat(Math.max(0, size - width(text)));
  return align === 'left' ? text + filling : filling + text;
}

function width(text: string): number {
  return [...text].length;
}
