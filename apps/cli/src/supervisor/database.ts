import { connect } from 'node:net';
import { join } from 'node:path';
import { errorMessage, sleep, type Logger } from '@tunefleet/foundation';
import { startEmbeddedPostgres, type EmbeddedPostgres } from '@tunefleet/postgres-embedded';

const CHECK_MS = 2_000;
const CONNECT_TIMEOUT_MS = 2_000;
/** A server under load may miss one knock. */
const MISSES_BEFORE_RESTART = 2;

export interface Database {
  /** Carries the password: never log it. */
  readonly url: string;
  readonly embedded: boolean;
  stop(): Promise<void>;
  /** For a process that is about to exit: stops the embedded server without waiting for it. */
  kill(): void;
}

/** The database named by `url`, or the embedded server, watched and started again on the same port when it is gone. */
export async function openDatabase(url: string | undefined, dataDir: string, logger: Logger): Promise<Database> {
  if (url !== undefined) return { url, embedded: false, stop: () => Promise.resolve(), kill: () => undefined };
  const folder = join(dataDir, 'postgres');
  let server: EmbeddedPostgres = await startEmbeddedPostgres({ dataDir: folder, logger });
  const port = Number(new URL(server.url).port);
  const stopping = new AbortController();
  const watch = async (): Promise<void> => {
    for (let misses = 0; !stopping.signal.aborted; await sleep(CHECK_MS, stopping.signal)) {
      misses = (await accepts(port)) ? 0 : misses + 1;
      if (misses < MISSES_BEFORE_RESTART || stopping.signal.aborted) continue;
      try {
        logger.warn({ port }, 'PostgreSQL is gone; starting it again');
        server = await startEmbeddedPostgres({ dataDir: folder, logger, port });
        misses = 0;
      } catch (error) {
        logger.error({ reason: errorMessage(error) }, 'PostgreSQL could not be started again');
      }
    }
  };
  const watching = watch();
  return {
    url: server.url,
    embedded: true,
    stop: async () => {
      stopping.abort();
      await watching;
      await server.stop();
    },
    kill: () => {
      stopping.abort();
      server.signalStop();
    },
  };
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port, timeout: CONNECT_TIMEOUT_MS });
    const finish = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => finish(true));
    socket.once('error', () => finish(false));
    socket.once('timeout', () => finish(false));
  });
}
