import { canonicalJson, errorMessage, sha256Hex } from '@tunefleet/foundation';
import { problemAt, problemFromIssue, type DatasetProblem } from './problems';
import { chatRowSchema, completionRowSchema, type DatasetFormat, type DatasetRow } from './rows';

export type ParsedRow =
  | { readonly ok: true; readonly row: DatasetRow; /** Equal rows have equal hashes, whatever their spacing and key order. */ readonly hash: string }
  | { readonly ok: false; readonly problems: readonly DatasetProblem[]; /** What the row seems to be, for the check that a file keeps to one format. */ readonly format: DatasetFormat | null };

/** Other vendors' formats, to tell people what they have in hand. */
const FOREIGN: readonly (readonly [string, string])[] = [
  ['text', 'has "text": plain-text rows are not supported; write {"prompt": "", "completion": <the text>}'],
  ['instruction', 'looks like an instruction row; write {"messages": [{"role": "user", ...}, {"role": "assistant", ...}]}'],
  ['conversations', 'looks like a ShareGPT row; rename "conversations" to "messages", "from" to "role" and "value" to "content"'],
  ['preferred_output', 'looks like a preference row; this job learns from single answers: write {"messages": [...]}'],
];

/** Checks one line. @param line its number, from 1 */
export function parseRow(text: string, line: number): ParsedRow {
  const refuse = (rule: string, what: string, format: DatasetFormat | null = null): ParsedRow => ({ ok: false, problems: [problemAt(line, rule, what)], format });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return refuse('invalid_json', `is not valid JSON (${errorMessage(error)}); write one JSON object per line, without line breaks inside`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return refuse('not_an_object', 'is not a JSON object; write {"messages": [...]} or {"prompt": ..., "completion": ...}');
  const hasChat = 'messages' in value;
  const hasCompletion = 'prompt' in value || 'completion' in value;
  if (hasChat && hasCompletion) return refuse('two_formats_in_row', 'has "messages" and also "prompt" or "completion"; keep one of the two formats');
  if (!hasChat && !hasCompletion) {
    const foreign = FOREIGN.find(([key]) => key in value);
    return refuse('unknown_format', foreign?.[1] ?? 'has neither "messages" nor "prompt" and "completion"; write one of the two formats');
  }
  const format: DatasetFormat = hasChat ? 'chat' : 'completion';
  const parsed = hasChat ? chatRowSchema.safeParse(value) : completionRowSchema.safeParse(value);
  if (!parsed.success) return { ok: false, format, problems: parsed.error.issues.map((issue) => problemFromIssue(line, issue)) };
  return { ok: true, row: { format, ...parsed.data } as DatasetRow, hash: sha256Hex(canonicalJson(parsed.data)) };
}
