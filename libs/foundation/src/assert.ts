import { TunefleetError } from './errors';

/** Ends a switch over a union: a new member fails to compile here, and throws if it ever arrives at run time. */
export function assertNever(value: never, what = 'value'): never {
  throw new TunefleetError('invariant', `unexpected ${what}: ${JSON.stringify(value)}`);
}

/** Throws an `invariant` error (a bug on our side) unless the condition holds. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new TunefleetError('invariant', message);
}
