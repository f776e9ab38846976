/** Checks what a bench returned; a row without a finite value is a broken bench, not a slow one. */
export function parseRows(bench, rows) {
  if (!Array.isArray(rows) || rows.length === 0) throw new Error(`bench "${bench}" returned no rows`);
  for (const row of rows) {
    const numbers = [row.value, row.peer, row.ratio].filter((value) => value !== undefined);
    if (typeof row.name !== 'string' || typeof row.unit !== 'string' || !numbers.every(Number.isFinite) || row.value === undefined) {
      throw new Error(`bench "${bench}" returned a bad row: ${JSON.stringify(row)}`);
    }
  }
  return rows;
}

/** Rows as an aligned table. */
export function formatRows(rows) {
  const lines = [
    ['measure', 'unit', 'ours', 'peer', 'ratio'],
    ...rows.map((row) => [row.name, row.unit, number(row.value), number(row.peer), row.ratio === undefined ? '' : `${row.ratio.toFixed(2)}x`]),
  ];
  const widths = lines[0].map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  return lines
    .map((line) => line.map((cell, i) => (i < 2 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join('  ').trimEnd() + '\n')
    .join('');
}

function number(value) {
  if (value === undefined) return '';
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
