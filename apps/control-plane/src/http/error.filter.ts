import { Catch, Inject, type ArgumentsHost, type ExceptionFilter } from '@nestjs/common';
import type { Logger } from '@tunefleet/foundation';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { LOGGER } from '../tokens';
import { errorAnswer } from './error-answer';

/** Turns whatever was thrown into the API's one error shape. Server errors are logged here, once, with their causes. */
@Catch()
export class ErrorFilter implements ExceptionFilter {
  constructor(@Inject(LOGGER) private readonly logger: Logger) {}

  catch(error: unknown, host: ArgumentsHost): void {
    const http = host.switchToHttp();
    const request = http.getRequest<FastifyRequest>();
    const reply = http.getResponse<FastifyReply>();
    const answer = errorAnswer(error, request.id);
    if (answer.status >= 500) this.logger.error({ err: error, requestId: request.id }, 'request failed');
    // A stream that broke after its head was sent: the connection's end is the only sign left.
    if (reply.sent || reply.raw.headersSent) {
      reply.raw.destroy();
      return;
    }
    void reply.code(answer.status).headers(answer.headers).type('application/json; charset=utf-8').send(answer.body);
  }
}
