import type { Command } from 'commander';
import { TunefleetError } from '@tunefleet/foundation';
import { runCommand } from '../connection/command';
import { wholeNumber } from '../render/arguments';
import { EXIT } from '../render/exit-code';
import { noteLogger, type Output } from '../render/output';
import { secretsFile, startService } from '../supervisor';

interface UpOptions {
  readonly workers: number;
  readonly port: number;
  readonly grpcPort: number;
  readonly dataDir?: string;
  readonly verbose?: boolean;
}

/** The whole service on one machine, until Ctrl-C. */
export function registerUp(program: Command): void {
  program
    .command('up')
    .description('run the service on this machine: database, control plane and workers')
    .option('--workers <count>', 'worker processes; one per GPU', wholeNumber(0, 64), 1)
    .option('--port <port>', 'HTTP port; 0: any free one', wholeNumber(0, 65_535), 7860)
    .option('--grpc-port <port>', 'port the workers dial; 0: any free one', wholeNumber(0, 65_535), 0)
    .option('--data-dir <dir>', 'where all data lies (default: TUNEFLEET_DATA_DIR, or .tunefleet)')
    .option('--verbose', 'show what the processes log')
    .addHelpText('after', '\nThe database is DATABASE_URL, or an embedded PostgreSQL. Queues are in REDIS_URL, or in the database.')
    .action(async (options: UpOptions) => {
      await runCommand({}, (output, signal) => up(options, output, signal));
    });
}

async function up(options: UpOptions, output: Output, signal: AbortSignal): Promise<number> {
  const startedAt = performance.now();
  const service = await startService({
    dataDir: options.dataDir ?? (process.env['TUNEFLEET_DATA_DIR'] || '.tunefleet'),
    workers: options.workers,
    httpPort: options.port,
    grpcPort: options.grpcPort,
    environment: process.env,
    logger: noteLogger(output),
    verbose: options.verbose ?? false,
    signal,
  });
  output.note(`Tunefleet is ready (${((performance.now() - startedAt) / 1000).toFixed(1)} s)`);
  output.note(`  address   ${service.url}`);
  output.note(`  API key   in ${secretsFile(service.dataDir)}`);
  output.note(`  database  ${service.embeddedDatabase ? `embedded PostgreSQL in ${service.dataDir}/postgres` : 'DATABASE_URL'}`);
  output.note(`  workers   ${options.workers}`);
  output.note(`  logs      ${options.verbose === true ? 'on this terminal' : `${service.dataDir}/logs`}`);
  output.note('Ctrl-C stops it.');
  const stop = (): void => {
    output.note('stopping (Ctrl-C again: at once)');
    // `runCommand` ends the process at the second signal; its children must not be left to find that out by themselves.
    process.once('exit', () => service.kill());
    service.stop().catch(() => undefined);
  };
  if (signal.aborted) stop();
  else signal.addEventListener('abort', stop, { once: true });
  await service.ended;
  if (!signal.aborted) throw new TunefleetError('unavailable', 'the service has ended');
  return EXIT.ok;
}
