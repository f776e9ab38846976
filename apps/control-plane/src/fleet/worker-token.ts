import { createHash, timingSafeEqual } from 'node:crypto';
import type { Metadata } from '@grpc/grpc-js';
import { TunefleetError } from '@tunefleet/foundation';

const SCHEME = 'Bearer ';

/**
 * Checks the shared worker token of a call. Both sides are hashed first, so that neither length nor content shows in the time taken.
 * @throws unauthenticated
 */
export function requireWorkerToken(metadata: Metadata, token: string): void {
  const header = metadata.get('authorization')[0];
  const given = typeof header === 'string' && header.startsWith(SCHEME) ? header.slice(SCHEME.length) : '';
  if (!timingSafeEqual(digest(given), digest(token))) {
    throw new TunefleetError('unauthenticated', 'the worker token is missing or wrong: set TUNEFLEET_WORKER_TOKEN to the value the control plane was started with');
  }
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
