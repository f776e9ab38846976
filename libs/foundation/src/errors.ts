/**
 * The one error class of the product. Code throws it where it knows what went wrong; the edges (HTTP, gRPC, CLI, job record)
 * translate it by `code` through the table in `@tunefleet/contracts`. Match on `code`, never with `instanceof`:
 * instances do not survive process borders.
 */
export type ErrorCode =
  | 'invalid_input'
  | 'incompatible_artifact'
  | 'unauthenticated'
  | 'permission_denied'
  | 'not_found'
  | 'conflict'
  | 'illegal_transition'
  | 'capacity'
  | 'unavailable'
  | 'lease_lost'
  | 'worker_lost'
  | 'out_of_device_memory'
  | 'numerical'
  | 'cancelled'
  | 'invariant';

/** Whether trying the same thing again can help, and how. */
export type RetryAdvice = 'never' | 'after_reading_again' | 'with_backoff' | 'new_attempt';

export interface ErrorOptions {
  /** Finer reason for programs, e.g. `invalid_training_file`; sent as the API's `code`. */
  readonly reason?: string;
  /** The request field at fault, e.g. `training_file`. */
  readonly param?: string;
  /** Structured facts for logs and clients; never secrets. */
  readonly details?: Readonly<Record<string, unknown>>;
  readonly cause?: unknown;
  readonly retry?: RetryAdvice;
}

const DEFAULT_RETRY: Readonly<Record<ErrorCode, RetryAdvice>> = {
  invalid_input: 'never',
  incompatible_artifact: 'never',
  unauthenticated: 'never',
  permission_denied: 'never',
  not_found: 'never',
  conflict: 'after_reading_again',
  illegal_transition: 'never',
  capacity: 'with_backoff',
  unavailable: 'with_backoff',
  lease_lost: 'new_attempt',
  worker_lost: 'new_attempt',
  out_of_device_memory: 'never',
  numerical: 'never',
  cancelled: 'never',
  invariant: 'never',
};

export class TunefleetError extends Error {
  readonly code: ErrorCode;
  readonly retry: RetryAdvice;
  readonly reason: string | undefined;
  readonly param: string | undefined;
  readonly details: Readonly<Record<string, unknown>>;

  /** @param message shown to people outside: the value, the limit and the next step; no secrets. */
  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'TunefleetError';
    this.code = code;
    this.retry = options.retry ?? DEFAULT_RETRY[code];
    this.reason = options.reason;
    this.param = options.param;
    this.details = options.details ?? {};
  }

  get publicMessage(): string {
    return this.message;
  }
}

/** True for our errors, also those made by another copy of this module. */
export function isTunefleetError(error: unknown): error is TunefleetError {
  return error instanceof Error && error.name === 'TunefleetError' && 'code' in error;
}

/** The error's code, or undefined for foreign errors. */
export function errorCode(error: unknown): ErrorCode | undefined {
  return isTunefleetError(error) ? error.code : undefined;
}

/** A readable one-line form of anything thrown. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
