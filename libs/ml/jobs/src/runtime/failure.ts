import { failureSchema, type Failure, type FailureClass } from '@tunefleet/contracts';
import { errorMessage, isTunefleetError, type ErrorCode } from '@tunefleet/foundation';

/** Who acts on an error that ends a job. The only such table of the engine. */
const classOf: Readonly<Record<ErrorCode, FailureClass>> = {
  invalid_input: 'user',
  incompatible_artifact: 'user',
  unauthenticated: 'user',
  permission_denied: 'user',
  not_found: 'user',
  illegal_transition: 'user',
  numerical: 'user',
  cancelled: 'user',
  out_of_device_memory: 'resource',
  unavailable: 'infrastructure',
  capacity: 'infrastructure',
  conflict: 'infrastructure',
  lease_lost: 'infrastructure',
  worker_lost: 'infrastructure',
  invariant: 'platform',
};

const MESSAGE_CHARACTERS_MAX = 4000;

/** Turns anything thrown by a handler into what the record keeps. Secrets are kept out by whoever threw. */
export function classifyFailure(error: unknown): Failure {
  const message = shorten(errorMessage(error));
  if (isTunefleetError(error)) {
    return failureSchema.parse({ class: classOf[error.code], code: (error.reason ?? error.code).slice(0, 100), message, param: error.param ?? null });
  }
  if (isOutOfMemory(error)) {
    return failureSchema.parse({
      class: 'resource',
      code: 'out_of_device_memory',
      message: shorten(`the device ran out of memory (${message}); use a smaller batch_size or shorter rows`),
    });
  }
  if (hasSystemCode(error, 'ENOSPC') || hasSystemCode(error, 'EDQUOT')) {
    return failureSchema.parse({ class: 'infrastructure', code: 'disk_full', message: shorten(`the worker's disk is full (${message}); free some space`) });
  }
  // Foreign errors come from native code, the disk or a bug. A bounded number of tries on other workers tells these apart.
  return failureSchema.parse({ class: 'infrastructure', code: 'engine_error', message: shorten(`the engine failed: ${message}`) });
}

/** TensorFlow reports a failed allocation as a plain error with its status name, V8 as a RangeError. */
function isOutOfMemory(error: unknown): boolean {
  return error instanceof Error && /\bOOM when allocating\b|\bResourceExhausted\b|\bRESOURCE_EXHAUSTED\b|Array buffer allocation failed|std::bad_alloc/.test(error.message);
}

function hasSystemCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

function shorten(message: string): string {
  return message.length <= MESSAGE_CHARACTERS_MAX ? message : `${message.slice(0, MESSAGE_CHARACTERS_MAX - 3)}...`;
}
