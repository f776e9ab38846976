import { applyDecorators, HttpCode } from '@nestjs/common';
import type { z } from 'zod';

/** What the OpenAPI document says of a handler; the parts that are enforced come from the decorators that enforce them. */
export interface OperationInfo {
  readonly summary?: string;
  readonly body?: z.ZodType;
  readonly query?: z.ZodType;
  /** Status and schema of the answer. */
  readonly status?: number;
  readonly answer?: z.ZodType;
  /** Instead of JSON. */
  readonly contentType?: string;
  readonly multipart?: z.ZodType;
  readonly public?: true;
}

const OPERATION = 'tunefleet:operation';

/** Adds to what is known of a handler. Parameter decorators run before method decorators. */
export function describeHandler(target: object, key: string | symbol | undefined, info: OperationInfo): void {
  if (key === undefined) return;
  const handler = (target as Record<string | symbol, object | undefined>)[key];
  if (handler === undefined) return;
  Reflect.defineMetadata(OPERATION, { ...operationOf(handler), ...info }, handler);
}

export function operationOf(handler: object): OperationInfo {
  return (Reflect.getMetadata(OPERATION, handler) ?? {}) as OperationInfo;
}

/** One endpoint: its line in the API page, and the status of its answer (200 unless told otherwise). */
export function Operation(summary: string, info: Omit<OperationInfo, 'summary' | 'body' | 'query' | 'public'> = {}): MethodDecorator {
  const describe: MethodDecorator = (target, key) => describeHandler(target, key, { summary, ...info });
  return applyDecorators(HttpCode(info.status ?? 200), describe);
}

/** No API key is asked for. */
export function Public(): MethodDecorator {
  return (target, key) => describeHandler(target, key, { public: true });
}
