import { canonicalJson, errorMessage, sha256Hex } from '@tunefleet/foundation';
import type { z } from 'zod';
import { problemAt, problemFromIssue, type DatasetProblem } from './problems';
import { chatRowSchema, completionRowSchema, preferenceRowSchema, textRowSchema, type DatasetFormat, type DatasetRow, type PreferenceDatasetRow, type TextDatasetRow } from './rows';

export type ParsedRow<Row = DatasetRow> =
  | { readonly ok: true; readonly row: Row; /** Equal rows have equal hashes, whatever their spacing and key order. */ readonly hash: string }
  | { readonly ok: false; readonly problems: readonly DatasetProblem[]; /** What the row seems to be, for the check that a file keeps to one format. */ readonly format: DatasetFormat | null };

/** Other vendors' formats, to tell people what they have in hand. */
const FOREIGN: readonly (readonly [string, string])[] = [
  ['text', 'is a plain-text row; those are for the method "pretraining". Use that, or write {"prompt": "", "completion": <the text>}'],
  ['instruction', 'looks like an instruction row; write {"messages": [{"role": "user", ...}, {"role": "assistant", ...}]}'],
  ['conversations', 'looks like a ShareGPT row; rename "conversations" to "messages", "from" to "role" and "value" to "content"'],
  ['preferred_output', 'is a preference row; those are for the method "dpo". Use that, or write {"messages": [...]}'],
];

/** Reads one line. @param line its number, from 1 */
export type RowParser<Row> = (text: string, line: number) => ParsedRow<Row>;

/** Checks one line of chat or prompt/completion rows. @param line its number, from 1 */
export function parseRow(text: string, line: number): ParsedRow {
  return parseObject(text, line, 'write {"messages": [...]} or {"prompt": ..., "completion": ...}', (value) => {
    const hasChat = 'messages' in value;
    const hasCompletion = 'prompt' in value || 'completion' in value;
    if (hasChat && hasCompletion) return refuse(line, 'two_formats_in_row', 'has "messages" and also "prompt" or "completion"; keep one of the two formats');
    if (!hasChat && !hasCompletion) {
      const foreign = FOREIGN.find(([key]) => key in value);
      return refuse(line, 'unknown_format', foreign?.[1] ?? 'has neither "messages" nor "prompt" and "completion"; write one of the two formats');
    }
    return hasChat ? checked<DatasetRow>('chat', chatRowSchema, value, line) : checked<DatasetRow>('completion', completionRowSchema, value, line);
  });
}

const PREFERENCE_KEYS = ['input', 'preferred_output', 'non_preferred_output'];
const PREFERENCE_SHAPE = '{"input": {"messages": [...]}, "preferred_output": [<one assistant message>], "non_preferred_output": [<one assistant message>]}';

/** Checks one line of preference rows. @param line its number, from 1 */
export function parsePreferenceRow(text: string, line: number): ParsedRow<PreferenceDatasetRow> {
  return parseObject(text, line, `write ${PREFERENCE_SHAPE}`, (value) => {
    if (!PREFERENCE_KEYS.some((key) => key in value)) return refuse(line, 'unknown_format', `is not a preference row; the method "dpo" learns from pairs of answers: write ${PREFERENCE_SHAPE}`);
    return checked('preference', preferenceRowSchema, value, line);
  });
}

/** Checks one line of plain-text rows. @param line its number, from 1 */
export function parseTextRow(text: string, line: number): ParsedRow<TextDatasetRow> {
  return parseObject(text, line, 'write {"text": <a document>}', (value) => {
    if (!('text' in value)) return refuse(line, 'unknown_format', 'has no "text"; the method "pretraining" learns from documents: write {"text": <a document>}');
    const other = ['messages', 'prompt', 'completion', ...PREFERENCE_KEYS].find((key) => key in value);
    if (other !== undefined) return refuse(line, 'two_formats_in_row', `has "text" and also "${other}"; keep one format`);
    return checked('text', textRowSchema, value, line);
  });
}

function parseObject<Row>(text: string, line: number, shape: string, check: (value: object) => ParsedRow<Row>): ParsedRow<Row> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return refuse(line, 'invalid_json', `is not valid JSON (${errorMessage(error)}); write one JSON object per line, without line breaks inside`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return refuse(line, 'not_an_object', `is not a JSON object; ${shape}`);
  return check(value);
}

function checked<Row>(format: DatasetFormat, schema: z.ZodType<Omit<Row, 'format'>>, value: object, line: number): ParsedRow<Row> {
  const parsed = schema.safeParse(value);
  if (!parsed.success) return { ok: false, format, problems: parsed.error.issues.map((issue) => problemFromIssue(line, issue)) };
  return { ok: true, row: { format, ...parsed.data } as Row, hash: sha256Hex(canonicalJson(parsed.data)) };
}

function refuse(line: number, rule: string, what: string): Extract<ParsedRow<never>, { ok: false }> {
  return { ok: false, problems: [problemAt(line, rule, what)], format: null };
}
