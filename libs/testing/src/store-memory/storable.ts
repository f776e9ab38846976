import type { Failure } from '@tunefleet/contracts';

/** In JSON text: NUL, and halves of surrogate pairs. Not a backslash before such letters. */
const UNSTORABLE = /(?<!\\)((?:\\\\)*)\\u(?:0000|d[89a-f][0-9a-f]{2})/g;

/** A copy of the value as PostgreSQL would give it back: without what its text and JSON refuse. */
export function storable<T>(value: T): T {
  return value === null || value === undefined ? value : (JSON.parse(JSON.stringify(value).replace(UNSTORABLE, '$1\ufffd')) as T);
}

export function plainText(text: string): string {
  return text.replaceAll('\u0000', '\ufffd');
}

export function storableFailure(failure: Failure): Failure {
  return storable({ ...failure, message: failure.message.slice(0, 4000), logTail: failure.logTail.slice(-50).map((line) => line.slice(0, 2000)) });
}
