import { TunefleetError } from '@tunefleet/foundation';

/** Deeper values than any request has; recursion further on stays far from the stack's end. */
const DEPTH_MAX = 32;
/** PostgreSQL's text and jsonb hold neither the character NUL nor half of a surrogate pair. */
const UNSTORABLE = /[\u0000\p{Surrogate}]/u;

/** @throws invalid_input for values that the record could not hold */
export function requireStorable(value: unknown, what: string): void {
  const open: { readonly value: unknown; readonly depth: number }[] = [{ value, depth: 1 }];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const { value: current, depth } = next;
    if (typeof current === 'string') requireText(current, what);
    if (typeof current !== 'object' || current === null) continue;
    if (depth > DEPTH_MAX) throw new TunefleetError('invalid_input', `${what} is nested more than ${DEPTH_MAX} levels deep: flatten it`, { reason: 'invalid_value' });
    for (const [key, inner] of Object.entries(current)) {
      requireText(key, what);
      if (key === '__proto__') throw new TunefleetError('invalid_input', `${what} has a field called __proto__: leave it out`, { reason: 'invalid_value' });
      open.push({ value: inner, depth: depth + 1 });
    }
  }
}

function requireText(text: string, what: string): void {
  if (UNSTORABLE.test(text)) throw new TunefleetError('invalid_input', `${what} contains a NUL character or half of a surrogate pair: remove it`, { reason: 'invalid_value' });
}
