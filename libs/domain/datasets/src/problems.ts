import type { z } from 'zod';

export interface DatasetProblem {
  /** Row number in the file, from 1; 0 for the file as a whole. */
  readonly line: number;
  /** JSON pointer to the value at fault, empty for the whole row. */
  readonly pointer: string;
  /** Stable id for programs. */
  readonly rule: string;
  /** Starts with the row number and says what to do. */
  readonly message: string;
}

export function problemAt(line: number, rule: string, what: string, pointer = ''): DatasetProblem {
  const place = line === 0 ? 'the file' : `row ${line}${pointer === '' ? '' : `, ${pointer}`}`;
  return { line, pointer, rule, message: `${place}: ${what}` };
}

/** One zod issue as a problem. Unions report the branch that came closest. */
export function problemFromIssue(line: number, issue: z.core.$ZodIssue): DatasetProblem {
  const custom = issue.code === 'custom' ? (issue.params as { rule?: unknown } | undefined)?.rule : undefined;
  const rule = typeof custom === 'string' ? custom : `bad_${lastName(issue.path) ?? 'row'}`;
  return problemAt(line, rule, issue.message, jsonPointer(issue.path));
}

function lastName(path: readonly PropertyKey[]): string | undefined {
  return path.filter((part): part is string => typeof part === 'string').at(-1);
}

/** RFC 6901. */
export function jsonPointer(path: readonly PropertyKey[]): string {
  return path.map((part) => `/${String(part).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('');
}
