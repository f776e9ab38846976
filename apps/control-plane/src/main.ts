import { errorMessage, type Logger } from '@tunefleet/foundation';
import { pino } from 'pino';
import { parseConfig } from './config/config';
import { startControlPlane, type ControlPlane } from './start/start-control-plane';

/** Exit codes: 0 stopped on request, 1 could not start or broke, 2 the parent went away. */
const EXIT_FAILED = 1;
const EXIT_ORPHANED = 2;

async function main(): Promise<void> {
  const config = parseConfig(process.env);
  const logger: Logger = pino({ level: config.logLevel, base: { process: 'control-plane' } });
  let controlPlane: ControlPlane | null = null;
  let stopping = false;
  const stop = (why: string, exitCode: number): void => {
    // A second request does not wait.
    if (stopping || controlPlane === null) process.exit(exitCode);
    stopping = true;
    logger.info({ why }, 'stopping');
    void controlPlane.stop().finally(() => process.exit(exitCode));
  };
  process.on('SIGTERM', () => stop('SIGTERM', 0));
  process.on('SIGINT', () => stop('SIGINT', 0));
  // Started by another process, this one must not outlive it.
  process.on('disconnect', () => stop('the parent process went away', EXIT_ORPHANED));
  const crash = (error: unknown): void => {
    logger.error({ err: error }, 'unexpected error; ending, so that whoever runs this starts it again');
    process.exit(EXIT_FAILED);
  };
  process.on('uncaughtException', crash);
  process.on('unhandledRejection', crash);

  controlPlane = await startControlPlane(config, logger);
  const { httpUrl, grpcAddress } = controlPlane;
  if (process.connected) process.send?.({ type: 'ready', httpUrl, grpcAddress });
}

main().catch((error: unknown) => {
  process.stderr.write(`tunefleet control plane: ${errorMessage(error)}\n`);
  process.exit(EXIT_FAILED);
});
