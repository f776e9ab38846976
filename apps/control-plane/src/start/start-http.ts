import 'reflect-metadata';
import { NestFactory } from '@nestjs/core';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { errorMessage, TunefleetError } from '@tunefleet/foundation';
import { AppModule, controllers, type AppContext } from '../app.module';
import { createHttpServer } from '../http/http-server';
import { serveDocs } from '../openapi/serve-docs';
import { nestLogger } from './nest-logger';

export interface HttpEdge {
  readonly url: string;
  /** Answers what is under way for a moment, then cuts it off. */
  close(): Promise<void>;
}

/** Requests under way may take this long to end; downloads go on with a range at the next try. */
const DRAIN_MS = 2_500;

/** @throws unavailable when the address cannot be bound */
export async function startHttp(context: AppContext, isStopping: () => boolean): Promise<HttpEdge> {
  const { config, logger, clock } = context.runtime;
  const adapter = await createHttpServer({ logger, clock, isStopping });
  const app = await NestFactory.create<NestFastifyApplication>(AppModule.on(context), adapter, { logger: nestLogger(logger), bodyParser: false, abortOnError: false });
  serveDocs(app, controllers);
  await app.init();
  try {
    await app.listen(config.httpPort, config.host);
  } catch (error) {
    await app.close();
    throw new TunefleetError('unavailable', `the HTTP server cannot listen on ${config.host}:${config.httpPort}: ${errorMessage(error)}. Choose another TUNEFLEET_HTTP_PORT`, { cause: error });
  }
  const server = app.getHttpServer();
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : config.httpPort;
  return {
    url: `http://${config.host.includes(':') ? `[${config.host}]` : config.host}:${port}`,
    close: async () => {
      const cut = setTimeout(() => server.closeAllConnections(), DRAIN_MS);
      try {
        await app.close();
      } finally {
        clearTimeout(cut);
      }
    },
  };
}
