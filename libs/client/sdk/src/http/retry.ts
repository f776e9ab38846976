import { backoffDelayMs, type BackoffPolicy } from '@tunefleet/foundation';

/** What became of one try. */
export interface Outcome {
  /** Null: no answer came. */
  readonly status: number | null;
  readonly headers: Headers;
}

const BACKOFF: BackoffPolicy = { firstMs: 500, factor: 2, maxMs: 8_000 };
/** A server that asks for more patience gets the usual delay: a command must not sleep for an hour. */
const ASKED_DELAY_MAX_MS = 60_000;

/** The server took no notice of the request: any request may be sent again. */
const NOT_DONE: ReadonlySet<number> = new Set([429, 503]);
/** Perhaps done, perhaps not: only what may be done twice is sent again. */
const UNCERTAIN: ReadonlySet<number> = new Set([408, 502, 504]);

/**
 * Whether to try again, by the server's `x-should-retry` if it says, else by the tables above.
 * @param repeatable doing it twice is the same as doing it once
 */
export function mayRetry({ status, headers }: Outcome, repeatable: boolean): boolean {
  const advice = headers.get('x-should-retry');
  if (advice === 'true' || advice === 'false') return advice === 'true';
  if (status === null) return repeatable;
  return NOT_DONE.has(status) || (repeatable && UNCERTAIN.has(status));
}

/**
 * Milliseconds to wait: `retry-after-ms`, then `retry-after` (seconds or an HTTP date), then backoff with jitter.
 * @param attempt 1 for the first retry
 */
export function retryDelayMs(headers: Headers, attempt: number, nowMs: number, random: () => number = Math.random): number {
  const asked = askedDelayMs(headers, nowMs);
  return asked !== null && asked >= 0 && asked <= ASKED_DELAY_MAX_MS ? asked : backoffDelayMs(BACKOFF, attempt, random);
}

function askedDelayMs(headers: Headers, nowMs: number): number | null {
  const milliseconds = headers.get('retry-after-ms');
  if (milliseconds !== null && milliseconds !== '' && Number.isFinite(Number(milliseconds))) return Number(milliseconds);
  const after = headers.get('retry-after');
  if (after === null || after === '') return null;
  if (Number.isFinite(Number(after))) return Number(after) * 1000;
  const date = Date.parse(after);
  return Number.isNaN(date) ? null : date - nowMs;
}
