import { HttpException } from '@nestjs/common';
import { errorMap, type ApiError } from '@tunefleet/contracts';
import { isTunefleetError, type TunefleetError } from '@tunefleet/foundation';

export interface ErrorAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: ApiError;
}

/** Seconds a client should wait before it asks an overloaded or starting server again. */
const RETRY_AFTER_SECONDS = '1';

/** Anything thrown while a request was answered, as the API's one error shape. What is not ours says nothing of its inside. */
export function errorAnswer(error: unknown, requestId: string): ErrorAnswer {
  if (isTunefleetError(error)) return ownError(error, requestId);
  const status = statusOf(error);
  if (status === null || status >= 500) return internal(requestId, status ?? 500);
  const foreign = error as Error & { readonly code?: unknown };
  const message = FOREIGN_MESSAGES[typeof foreign.code === 'string' ? foreign.code : ''] ?? (status === 404 ? `${foreign.message}: /api/docs lists what there is` : foreign.message);
  return { status, headers: {}, body: { error: { message, type: 'invalid_request_error', param: null, code: STATUS_CODES[status] ?? 'invalid_request' } } };
}

function ownError(error: TunefleetError, requestId: string): ErrorAnswer {
  const edge = errorMap[error.code];
  // A bug's message is for the log; it may quote what nobody outside should see.
  if (error.code === 'invariant') return internal(requestId, edge.http);
  const headers: Record<string, string> = {};
  if (error.retry === 'with_backoff') headers['retry-after'] = RETRY_AFTER_SECONDS;
  // SDKs repeat every 409 unless told that it cannot help.
  if (error.code === 'conflict' && error.retry === 'never') headers['x-should-retry'] = 'false';
  return {
    status: edge.http,
    headers,
    body: { error: { message: error.publicMessage, type: edge.type, param: error.param ?? null, code: error.reason ?? edge.apiCode } },
  };
}

function internal(requestId: string, status: number): ErrorAnswer {
  const message = `the server made an error; it is in its log under request ${requestId}`;
  return { status, headers: {}, body: { error: { message, type: 'server_error', param: null, code: null } } };
}

/** The status that Nest or Fastify gave an error of theirs. */
function statusOf(error: unknown): number | null {
  if (error instanceof HttpException) return error.getStatus();
  if (error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number') return error.statusCode;
  return null;
}

const STATUS_CODES: Readonly<Record<number, string>> = {
  404: 'unknown_url',
  413: 'request_too_large',
  414: 'url_too_long',
  415: 'unsupported_media_type',
};

const FOREIGN_MESSAGES: Readonly<Record<string, string>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: 'the request body is larger than this endpoint takes; upload data with POST /v1/files and name its id',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'the content type is not supported: send application/json, or multipart/form-data to POST /v1/files',
  FST_ERR_BAD_URL: 'the URL is not valid: a percent sign must begin an escape such as %20',
};
