import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { parseWorkerConfig } from '../config';
import { runWorkerProcess } from '../worker-process';

/** The worker as it ships, with short times and the fake engine, for tests that start and kill it as a process. */
const config = parseWorkerConfig(process.env);
await runWorkerProcess({
  config,
  engineFile: join(dirname(fileURLToPath(import.meta.url)), 'fake-engine.mjs'),
  environment: process.env,
  settings: {
    silenceMs: 1_000,
    leaseMarginMs: 500,
    reconnect: { firstMs: 50, factor: 2, maxMs: 500 },
    reconnectRunningMaxMs: 100,
    transfer: { firstMs: 50, factor: 2, maxMs: 200 },
    stopMs: 500,
    sharedStopMs: 1_000,
    checkpointStopMs: 2_000,
    checkpointStopMsMax: 10_000,
    shutdownMs: 5_000,
    engineRestart: { firstMs: 20, factor: 2, maxMs: 200 },
    engineReadyMs: 20_000,
  },
  logger: pino({ level: config.logLevel, base: { worker: config.name } }),
});
