import { TunefleetError } from '@tunefleet/foundation';
import type { z } from 'zod';

type Issue = z.core.$ZodIssue;

const VALUE_CHARS_MAX = 100;

/** The first fault of a request as an error that names the parameter, the value and what is expected. */
export function inputError(error: z.ZodError, input: unknown): TunefleetError {
  const [issue] = error.issues;
  if (issue === undefined) return new TunefleetError('invalid_input', 'the request is not valid');
  const path = issue.path;
  const [unknownKey] = issue.code === 'unrecognized_keys' ? issue.keys : [];
  if (unknownKey !== undefined) {
    const param = nameOf([...path, unknownKey]);
    return new TunefleetError('invalid_input', `unknown parameter: '${param}'. Leave it out, or look for its name in /api/docs`, { reason: 'unknown_parameter', param });
  }
  if (path.length === 0) return new TunefleetError('invalid_input', `the request must be a JSON object: ${expectation(issue)}`, { reason: 'invalid_type' });
  const param = nameOf(path);
  const value = valueAt(input, path);
  if (value === undefined) return new TunefleetError('invalid_input', `missing required parameter: '${param}'`, { reason: 'missing_required_parameter', param });
  const reason = issue.code === 'invalid_type' ? 'invalid_type' : 'invalid_value';
  return new TunefleetError('invalid_input', `invalid '${param}': ${shown(value)}: ${expectation(issue)}`, { reason, param });
}

function nameOf(path: readonly PropertyKey[]): string {
  return path.map(String).join('.').slice(0, 200);
}

function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  let value = input;
  for (const key of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = (value as Record<PropertyKey, unknown>)[key];
  }
  return value;
}

function shown(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length <= VALUE_CHARS_MAX ? text : `${text.slice(0, VALUE_CHARS_MAX)}…`;
}

/** What would have been right. Of a union, what each of its members would have taken. */
function expectation(issue: Issue): string {
  if (issue.code !== 'invalid_union') return issue.message;
  const branches = issue.errors.flatMap((branch) => (branch[0] === undefined ? [] : [expectation(branch[0])]));
  return branches.length === 0 ? issue.message : [...new Set(branches)].join(', or ');
}
