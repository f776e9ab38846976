import { systemClock, type Logger } from '@tunefleet/foundation';
import { Agent } from './agent/agent';
import { channelCredentials, channelOptions } from './agent/channel';
import type { AgentSettings } from './agent/settings';
import { lockInstance } from './agent/single-instance';
import type { WorkerConfig } from './config';

/** Exit codes: 0 stopped on request, 1 configuration or refusal by the control plane, 2 the parent went away. */
export const EXIT_REFUSED = 1;
const EXIT_ORPHANED = 2;
const VERSION = '0.1.0';
const HEALTH_LOG_MS = 60_000;

export interface WorkerProcessOptions {
  readonly config: WorkerConfig;
  /** The engine's module file. */
  readonly engineFile: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly settings?: Partial<AgentSettings>;
  readonly logger: Logger;
}

/** Runs an agent as this process: signals, the parent's channel, exit codes. @throws conflict when another process is this worker */
export async function runWorkerProcess({ config, engineFile, environment, settings, logger }: WorkerProcessOptions): Promise<void> {
  const agent = new Agent({
    ...config,
    channel: { credentials: await channelCredentials(config.tls), options: channelOptions(config.tls) },
    version: VERSION,
    engine: { file: engineFile, env: engineEnvironment(environment, config.cacheDir) },
    settings: { shutdownMs: config.stopMs, engineSilenceMs: config.engineSilenceMs, ...settings },
    clock: systemClock,
    logger,
    onReady: ({ workerId }) => {
      logger.info({ workerId }, 'worker ready');
      if (process.connected) process.send?.({ type: 'ready', workerId, name: config.name });
    },
    onRefused: (reason) => {
      logger.error({ controlPlane: config.controlPlane }, `the control plane refused this worker: ${reason}`);
      // Whoever keeps this process running is told that starting it again would change nothing.
      if (process.connected) process.send?.({ type: 'refused', reason });
      void agent.kill().finally(() => process.exit(EXIT_REFUSED));
    },
  });
  await lockInstance(config.workerDir, () => agent.health());

  let asked = 0;
  const shutDown = (signal: NodeJS.Signals): void => {
    asked++;
    logger.info({ signal }, asked === 1 ? 'shutting down' : 'shutting down at once');
    if (asked > 1) process.exit(0);
    void agent.stop().finally(() => process.exit(0));
  };
  process.on('SIGTERM', shutDown);
  process.on('SIGINT', shutDown);
  // A worker that was started by another process must not outlive it; the engine goes the same way when this one ends.
  process.on('disconnect', () => process.exit(EXIT_ORPHANED));

  await agent.start();
  setInterval(() => logger.info(agent.health(), 'worker health'), HEALTH_LOG_MS).unref();
}

/** The engine talks to no one but this process: it gets no secrets. */
function engineEnvironment(environment: Readonly<Record<string, string | undefined>>, cacheDir: string): Record<string, string | undefined> {
  const { TUNEFLEET_WORKER_TOKEN: _token, TUNEFLEET_API_KEY: _key, DATABASE_URL: _database, REDIS_URL: _redis, ...rest } = environment;
  return { ...rest, TUNEFLEET_CACHE_DIR: cacheDir };
}
