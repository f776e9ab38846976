import { Body, Query, type PipeTransform } from '@nestjs/common';
import type { z } from 'zod';
import { inputError } from './input-error';
import { describeHandler } from './operation';
import { foldQuery } from './query';

/** Parses one part of the request by its schema. @throws invalid_input naming the first parameter at fault */
class ZodPipe<T extends z.ZodType> implements PipeTransform<unknown, z.infer<T>> {
  constructor(
    private readonly schema: T,
    private readonly prepare: (input: unknown) => unknown,
  ) {}

  transform(input: unknown): z.infer<T> {
    const prepared = this.prepare(input);
    const parsed = this.schema.safeParse(prepared);
    if (!parsed.success) throw inputError(parsed.error, prepared);
    return parsed.data;
  }
}

/** The JSON body. Null means the same as absent, unless `nulls` are meant: SDKs send fields that the caller set to null. */
export function ValidBody(schema: z.ZodType, { nulls = false } = {}): ParameterDecorator {
  return (target, key, index) => {
    Body(new ZodPipe(schema, nulls ? asSent : withoutNulls))(target, key, index);
    describeHandler(target, key, { body: schema });
  };
}

/** The query, `a[b]=c` folded into objects. */
export function ValidQuery(schema: z.ZodType): ParameterDecorator {
  return (target, key, index) => {
    Query(new ZodPipe(schema, foldQuery))(target, key, index);
    describeHandler(target, key, { query: schema });
  };
}

/** Fields whose content is the user's own: a null in there is theirs. */
const OPAQUE = new Set(['metadata', 'tuner']);

function asSent(input: unknown): unknown {
  return input;
}

function withoutNulls(input: unknown): unknown {
  if (typeof input !== 'object' || input === null || Array.isArray(input)) return input;
  const kept = Object.entries(input).filter(([, value]) => value !== null);
  return Object.fromEntries(kept.map(([key, value]) => [key, OPAQUE.has(key) ? value : withoutNulls(value)]));
}
