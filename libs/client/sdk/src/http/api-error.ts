import { apiErrorSchema, errorMap } from '@tunefleet/contracts';
import { TunefleetError, errorMessage, type ErrorCode } from '@tunefleet/foundation';

export interface ApiErrorFacts {
  /** HTTP status; null when no answer came. */
  readonly status: number | null;
  /** For people who ask for help: names this request in the server's log. */
  readonly requestId?: string | undefined;
  /** The server's own `error.code`. */
  readonly reason?: string | undefined;
  readonly param?: string | undefined;
  readonly cause?: unknown;
}

/**
 * What every failed request throws. `code` is the class of error (`not_found`, `unavailable`, …), `reason` the server's finer code
 * (`model_not_found`), `param` the request field at fault, `message` the server's.
 */
export class TunefleetApiError extends TunefleetError {
  readonly status: number | null;
  readonly requestId: string | undefined;

  constructor(code: ErrorCode, message: string, { status, requestId, reason, param, cause }: ApiErrorFacts) {
    super(code, message, {
      cause,
      ...(reason === undefined ? {} : { reason }),
      ...(param === undefined ? {} : { param }),
      details: { status, ...(requestId === undefined ? {} : { requestId }) },
    });
    this.status = status;
    this.requestId = requestId;
  }
}

/** @param body the answer's text, whatever it is: proxies send pages of their own */
export function errorFromAnswer(status: number, headers: Headers, body: string): TunefleetApiError {
  const requestId = headers.get('x-request-id') ?? undefined;
  const parsed = apiErrorSchema.safeParse(parseJson(body));
  if (!parsed.success) return new TunefleetApiError(codeOf(status, null), `the server answered ${status} without saying why`, { status, requestId });
  const { message, code, param } = parsed.data.error;
  return new TunefleetApiError(codeOf(status, code), message, { status, requestId, reason: code ?? undefined, param: param ?? undefined });
}

/** No answer: refused, cut off, timed out, name unknown. */
export function errorFromSilence(error: unknown): TunefleetApiError {
  // `fetch failed` says nothing; its cause does. A host with several addresses has one cause for each.
  const { cause = error } = error as { readonly cause?: unknown };
  const { errors } = cause as { readonly errors?: unknown };
  const first: unknown = Array.isArray(errors) && errors.length > 0 ? errors[0] : cause;
  return new TunefleetApiError('unavailable', errorMessage(first), { status: null, cause: error });
}

/** Inverse of `errorMap`: the row with this status and API code, else the first with this status. */
function codeOf(status: number, apiCode: string | null): ErrorCode {
  const rows = Object.entries(errorMap) as [ErrorCode, (typeof errorMap)[ErrorCode]][];
  const sameStatus = rows.filter(([, row]) => row.http === status);
  const exact = sameStatus.find(([, row]) => row.apiCode === apiCode);
  if (exact !== undefined && status < 500) return exact[0];
  if (sameStatus[0] !== undefined && status < 500) return sameStatus[0][0];
  if (status === 500) return 'invariant';
  return status > 500 || status === 408 ? 'unavailable' : 'invalid_input';
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
