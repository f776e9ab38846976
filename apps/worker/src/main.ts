import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { errorMessage } from '@tunefleet/foundation';
import { pino } from 'pino';
import { parseWorkerConfig } from './config';
import { EXIT_REFUSED, runWorkerProcess } from './worker-process';

async function main(): Promise<void> {
  const config = parseWorkerConfig(process.env);
  await runWorkerProcess({
    config,
    // The engine is built beside this bundle.
    engineFile: join(dirname(fileURLToPath(import.meta.url)), 'engine.mjs'),
    environment: process.env,
    logger: pino({ level: config.logLevel, base: { worker: config.name } }),
  });
}

main().catch((error: unknown) => {
  process.stderr.write(`tunefleet worker: ${errorMessage(error)}\n`);
  process.exit(EXIT_REFUSED);
});
