import { TunefleetError, errorMessage } from '@tunefleet/foundation';
import type { FastifyInstance } from 'fastify';
import { requireStorable } from './storable';

/** Requests describe things; data goes through `POST /v1/files`. */
export const JSON_BYTES_MAX = 1024 * 1024;

/** Parses JSON bodies. An empty one is no body: SDKs send the content type also where there is nothing to say. */
export function acceptJson(server: FastifyInstance): void {
  server.removeAllContentTypeParsers();
  server.addContentTypeParser(/^application\/(?:[\w.-]+\+)?json\b/i, { parseAs: 'string', bodyLimit: JSON_BYTES_MAX }, (_request, body, done) => {
    try {
      done(null, parseJson(body.toString()));
    } catch (error) {
      done(error as Error, undefined);
    }
  });
}

/** @throws invalid_input */
function parseJson(text: string): unknown {
  if (text.trim() === '') return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new TunefleetError('invalid_input', `the request body is not valid JSON: ${errorMessage(cause)}`, { reason: 'invalid_json', cause });
  }
  requireStorable(value, 'the request body');
  return value;
}
