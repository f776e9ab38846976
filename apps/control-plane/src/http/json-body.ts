import { TunefleetError, errorMessage } from '@tunefleet/foundation';
import type { FastifyInstance } from 'fastify';
import { requireStorable } from './storable';

/** Requests describe things; data goes through `POST /v1/files`. */
export const JSON_BYTES_MAX = 1024 * 1024;

/** Parses JSON bodies. An empty one is no body: SDKs send the content type also where there is nothing to say. */
export function acceptJson(server: FastifyInstance): void {
  const parse = server.getDefaultJsonParser('error', 'error');
  server.removeAllContentTypeParsers();
  server.addContentTypeParser(/^application\/(?:[\w.-]+\+)?json\b/i, { parseAs: 'string', bodyLimit: JSON_BYTES_MAX }, (request, body, done) => {
    const text = typeof body === 'string' ? body : body.toString('utf8');
    if (text.trim() === '') return done(null, undefined);
    void parse(request, text, (error, value) => {
      if (error !== null) return done(notJson(error), undefined);
      try {
        requireStorable(value, 'the request body');
      } catch (refusal) {
        return done(refusal as Error, undefined);
      }
      done(null, value);
    });
  });
}

function notJson(cause: Error): TunefleetError {
  return new TunefleetError('invalid_input', `the request body is not valid JSON: ${errorMessage(cause)}`, { reason: 'invalid_json', cause });
}
