import { renderFields, renderTable } from './table';
import { clip, formatBytes, formatCount, formatDuration, oneLine } from './text';

test('columns are as wide as their widest cell, and empty cells are a dash', () => {
  const rows = [
    { name: 'a', size: 5 },
    { name: 'longer', size: 1234 },
    { name: '', size: 1 },
  ];
  const table = renderTable(
    [
      { header: 'name', value: (row) => row.name },
      { header: 'size', value: (row) => formatCount(row.size), align: 'right' },
    ],
    rows,
  );
  expect(table.split('\n')).toEqual(['NAME     SIZE', 'a           5', 'longer  1,234', '-           1']);
});

test('a table without rows still says its columns', () => {
  expect(renderTable([{ header: 'id', value: String }], [])).toBe('ID');
});

test('fields without a value are left out', () => {
  expect(renderFields([['id', 'x'], ['waiting', null], ['status', 'queued']])).toBe('id      x\nstatus  queued');
});

test('text from elsewhere cannot move the cursor or break the line', () => {
  expect(oneLine('a\u001b[2Jb\r\nc\u202ed')).toBe('a[2Jb cd');
  expect(clip('spam and eggs', 6)).toBe('spam …');
  expect(clip('spam', 6)).toBe('spam');
});

test.each([
  [0.04, '0.0s'],
  [9.96, '10.0s'],
  [59.4, '59s'],
  [59.6, '1m 00s'],
  [3599.7, '1h 00m'],
  [90_061, '1d 1h'],
])('%f seconds read as %s', (seconds, text) => {
  expect(formatDuration(seconds)).toBe(text);
});

test.each([
  [0, '0 B'],
  [1023, '1023 B'],
  [1024, '1.0 KiB'],
  [150 * 1024 ** 2, '150 MiB'],
  [5 * 1024 ** 4, '5.0 TiB'],
])('%i bytes read as %s', (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});
