import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import { TunefleetError } from '@tunefleet/foundation';
import type { FastifyRequest } from 'fastify';

export interface RepeatHints {
  /** `Idempotency-Key`: requests with the same one are the same request. */
  readonly key: string | null;
  /** The SDK says that it has sent this request before. */
  readonly isRetry: boolean;
}

const KEY = /^[\x21-\x7e]{1,255}$/;

/** @throws invalid_input */
export const Repeats = createParamDecorator((_data: unknown, context: ExecutionContext): RepeatHints => {
  const { headers } = context.switchToHttp().getRequest<FastifyRequest>();
  const key = headers['idempotency-key'];
  if (key !== undefined && (typeof key !== 'string' || !KEY.test(key))) {
    throw new TunefleetError('invalid_input', 'the header Idempotency-Key must be 1 to 255 visible ASCII characters', { reason: 'invalid_value', param: 'Idempotency-Key' });
  }
  return { key: key ?? null, isRetry: Number(headers['x-stainless-retry-count'] ?? 0) > 0 };
});
