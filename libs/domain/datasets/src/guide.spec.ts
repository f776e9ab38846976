import { readFileSync } from 'node:fs';
import { LINE_BYTES_MAX } from './lines';
import { parsePreferenceRow, parseRow, parseTextRow } from './parse-row';
import { MESSAGES_MAX } from './rows';
import { MIN_EXAMPLES_DEFAULT } from './validate-dataset';

/** What the user guide says about rows is true. */
const guide = readFileSync(new URL('../../../../docs/guide/datasets.md', import.meta.url), 'utf8');

test('every example row is a good row', () => {
  const rows = [...guide.matchAll(/```jsonl\n(.*?)```/gs)].flatMap(([, block = '']) => block.trim().split('\n'));
  expect(rows.length).toBeGreaterThan(3);
  for (const [index, row] of rows.entries()) expect({ row, parsed: parseRow(row, index + 1) }).toMatchObject({ row, parsed: { ok: true } });
});

test('so is the preference and the plain-text row', () => {
  const rowOf = (heading: string): string => /```json\n(.*?)\n```/s.exec(guide.slice(guide.indexOf(`## ${heading}`)))?.[1] ?? '';
  expect(parsePreferenceRow(rowOf('Preference rows'), 1)).toMatchObject({ ok: true });
  expect(parseTextRow(rowOf('Plain-text rows'), 1)).toMatchObject({ ok: true });
});

test('the limits are those of the code', () => {
  expect(guide).toContain(`| one line | ${LINE_BYTES_MAX / 1024 / 1024} MiB |`);
  expect(guide).toContain(`| messages in a row | ${MESSAGES_MAX} |`);
  expect(guide).toContain(`at least ${MIN_EXAMPLES_DEFAULT} good ones for training`);
});
