import type { Command } from 'commander';
import { cacheDirectory } from '@tunefleet/ml-models/specs';
import { runCommand } from '../connection/command';
import { findFleet } from '../connection/find-connection';
import { programFile, runProgram } from '../connection/run-program';

interface WorkerOptions {
  readonly controlPlane?: string;
  readonly name?: string;
  readonly dataDir?: string;
}

/** One worker of a fleet, until Ctrl-C; the control plane may be on another machine. */
export function registerWorker(program: Command): void {
  program
    .command('worker')
    .description('run one worker (one per GPU) for a control plane, here or on another machine')
    .option('--control-plane <host:port>', 'where to dial; grpcs://host:port for TLS (default: TUNEFLEET_CONTROL_PLANE, or the local service)')
    .option('--name <name>', 'unique in the fleet (default: TUNEFLEET_WORKER_NAME, or the host name)')
    .option('--data-dir <dir>', "the worker's own files, and where a local service is looked for (default: TUNEFLEET_DATA_DIR, or .tunefleet)")
    .addHelpText('after', '\nThe token that lets it in is TUNEFLEET_WORKER_TOKEN; for a local service it is found by itself.\nThe first Ctrl-C lets a running job write a checkpoint and gives it back; the second stops at once.')
    .action(async (options: WorkerOptions) => {
      await runCommand({}, async (_output, signal) => {
        const { controlPlane, workerToken } = await findFleet({ flags: options, environment: process.env, workingDir: process.cwd() });
        const { TUNEFLEET_API_KEY: _key, DATABASE_URL: _database, REDIS_URL: _redis, ...environment } = process.env;
        return runProgram(programFile('worker'), {
          env: {
            ...environment,
            TUNEFLEET_CACHE_DIR: cacheDirectory(process.env),
            TUNEFLEET_CONTROL_PLANE: controlPlane,
            TUNEFLEET_WORKER_TOKEN: workerToken,
            ...(options.name === undefined ? {} : { TUNEFLEET_WORKER_NAME: options.name }),
            ...(options.dataDir === undefined ? {} : { TUNEFLEET_DATA_DIR: options.dataDir }),
          },
          stop: signal,
        });
      });
    });
}
