import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import multipart from '@fastify/multipart';
import { TunefleetError, type Clock, type Logger } from '@tunefleet/foundation';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { errorAnswer } from './error-answer';
import { acceptJson, JSON_BYTES_MAX } from './json-body';
import { requireStorable } from './storable';

/** Model names are part of URLs, escaped. */
const PATH_PARAMETER_CHARS_MAX = 2_000;
const REQUEST_ID = /^[A-Za-z0-9_.:-]{1,100}$/;
const PROBES = new Set(['/healthz', '/readyz', '/metrics']);
/** Headers of a request must have come by then; bodies may take long, they can be half a gigabyte over a slow line. */
const HEADERS_TIMEOUT_MS = 30_000;

export interface HttpServerDeps {
  readonly logger: Logger;
  readonly clock: Clock;
  /** True once the process stops: no new work is begun. */
  readonly isStopping: () => boolean;
}

/** Fastify as this API needs it: request ids, one error shape also for what no route sees, JSON and multipart bodies, a log line per request. */
export async function createHttpServer(deps: HttpServerDeps): Promise<FastifyAdapter> {
  const adapter = new FastifyAdapter({
    bodyLimit: JSON_BYTES_MAX,
    return503OnClosing: false,
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: PATH_PARAMETER_CHARS_MAX },
    http: { headersTimeout: HEADERS_TIMEOUT_MS },
    genReqId: (request: IncomingMessage) => {
      const given = request.headers['x-request-id'];
      return typeof given === 'string' && REQUEST_ID.test(given) ? given : `req_${randomUUID().replaceAll('-', '')}`;
    },
    frameworkErrors: (error: Error, request: FastifyRequest, reply: FastifyReply) => {
      const answer = errorAnswer(error, request.id);
      void reply.code(answer.status).header('x-request-id', request.id).send(answer.body);
    },
    clientErrorHandler: refuseBrokenRequest,
  });
  const server = adapter.getInstance<FastifyInstance>();
  addHooks(server, deps);
  acceptJson(server);
  await server.register(multipart, { throwFileSizeLimit: false });
  return adapter;
}

function addHooks(server: FastifyInstance, { logger, clock, isStopping }: HttpServerDeps): void {
  const startedAt = new WeakMap<object, number>();
  server.addHook('onRequest', (request, reply, done) => {
    startedAt.set(request, clock.monotonic());
    reply.header('x-request-id', request.id);
    try {
      if (isStopping()) throw new TunefleetError('unavailable', 'the server is stopping; try again shortly');
      requireStorable([request.params, request.query], 'the URL');
    } catch (error) {
      return done(error as Error);
    }
    done();
  });
  server.addHook('onSend', (request, reply, payload, done) => {
    reply.header('openai-processing-ms', Math.round(elapsedMs(request)));
    // A connection that is kept open would keep a stopping server waiting.
    if (isStopping()) reply.header('connection', 'close');
    done(null, payload);
  });
  server.addHook('onResponse', (request, reply, done) => {
    const path = request.url.split('?', 1)[0] ?? '';
    const retry = request.headers['x-stainless-retry-count'];
    const fields = { requestId: request.id, method: request.method, path, status: reply.statusCode, ms: Math.round(elapsedMs(request)), ...(retry === undefined || retry === '0' ? {} : { retry }) };
    // Probes and scrapes come every few seconds.
    if (PROBES.has(path)) logger.debug(fields, 'request');
    else logger.info(fields, 'request');
    done();
  });
  const elapsedMs = (request: object): number => clock.monotonic() - (startedAt.get(request) ?? clock.monotonic());
}

/** What is not HTTP, or has headers beyond bounds. There is no request to answer, only a socket. */
function refuseBrokenRequest(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const status = error.code === 'HPE_HEADER_OVERFLOW' ? '431 Request Header Fields Too Large' : error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? '408 Request Timeout' : '400 Bad Request';
  const message = error.code === 'HPE_HEADER_OVERFLOW' ? 'the headers are larger than 16 KiB' : 'the request is not valid HTTP';
  const body = JSON.stringify({ error: { message, type: 'invalid_request_error', param: null, code: 'invalid_request' } });
  socket.end(`HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`);
}
