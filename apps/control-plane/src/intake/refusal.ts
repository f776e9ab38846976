import type { Failure } from '@tunefleet/contracts';
import { errorMessage, isTunefleetError, type ErrorCode } from '@tunefleet/foundation';

/** What the user can mend. Everything else is tried again for a while. */
const USER_ERRORS: ReadonlySet<ErrorCode> = new Set(['invalid_input', 'incompatible_artifact', 'not_found', 'permission_denied', 'unauthenticated', 'out_of_device_memory']);
/** Ours to mend, though trying again is unlikely to help. */
const BUGS: ReadonlySet<ErrorCode> = new Set(['invariant', 'illegal_transition', 'numerical']);

const MESSAGE_CHARS_MAX = 4000;
const LINES_MAX = 50;
const LINE_CHARS_MAX = 2000;
/** PostgreSQL's jsonb holds neither; both may come from a user's file. */
const UNSTORABLE = /[\u0000\p{Surrogate}]/gu;

/** The failure to refuse the job with at once; null when trying again may help. */
export function userFailure(error: unknown): Failure | null {
  if (!isTunefleetError(error) || !USER_ERRORS.has(error.code)) return null;
  return {
    class: error.code === 'out_of_device_memory' ? 'resource' : 'user',
    code: error.reason ?? error.code,
    message: storable(error.publicMessage, MESSAGE_CHARS_MAX),
    param: error.param ?? null,
    logTail: problemLines(error.details['problems']),
  };
}

/** The failure after trying for long enough. A bug's message stays in the log: it says nothing to users. */
export function lastFailure(error: unknown, triedForMs: number): Failure {
  const isBug = !isTunefleetError(error) || BUGS.has(error.code);
  const seconds = Math.round(triedForMs / 1000);
  const tried = seconds < 120 ? `tried for ${seconds} seconds` : `tried for ${Math.round(seconds / 60)} minutes`;
  return {
    class: isBug ? 'platform' : 'infrastructure',
    code: isTunefleetError(error) ? (error.reason ?? error.code) : 'internal_error',
    message: isBug
      ? `the job could not be checked because of an internal error (${tried}): the operator finds it in the log under this job's id; submit the job again once it is mended`
      : storable(`the job could not be checked (${tried}): ${errorMessage(error)}. Submit it again later`, MESSAGE_CHARS_MAX),
    param: isTunefleetError(error) ? (error.param ?? null) : null,
    logTail: [],
  };
}

/** A file's further problems, one a line. */
function problemLines(problems: unknown): string[] {
  if (!Array.isArray(problems)) return [];
  return problems.slice(0, LINES_MAX).map((problem: { readonly message?: unknown }) => storable(String(problem.message), LINE_CHARS_MAX));
}

function storable(text: string, charactersMax: number): string {
  const cut = text.length > charactersMax ? `${text.slice(0, charactersMax - 1)}…` : text;
  return cut.replace(UNSTORABLE, '\ufffd');
}
