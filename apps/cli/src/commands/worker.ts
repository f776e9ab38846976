import type { Command } from 'commander';
import { cacheDirectory } from '@tunefleet/ml-models/specs';
import { runCommand } from '../connection/command';
import { findFleet } from '../connection/find-connection';
import { programFile, runProgram } from '../connection/run-program';
import { keyValue, wholeNumber } from '../render/arguments';

interface WorkerOptions {
  readonly controlPlane?: string;
  readonly name?: string;
  readonly dataDir?: string;
  readonly label?: Readonly<Record<string, string>>;
  readonly slots?: number;
  readonly stopSeconds?: number;
}

/** One worker of a fleet, until Ctrl-C; the control plane may be on another machine. */
export function registerWorker(program: Command): void {
  program
    .command('worker')
    .description('run one worker (one per GPU) for a control plane, here or on another machine')
    .option('--control-plane <host:port>', 'where to dial; grpcs://host:port for TLS (default: TUNEFLEET_CONTROL_PLANE, or the local service)')
    .option('--name <name>', 'unique in the fleet (default: TUNEFLEET_WORKER_NAME, or the host name)')
    .option('--data-dir <dir>', "the worker's own files, and where a local service is looked for (default: TUNEFLEET_DATA_DIR, or .tunefleet)")
    .option('--label <key=value>', 'what it offers to jobs that ask for it; repeatable (default: TUNEFLEET_WORKER_LABELS, "a=b,c=d")', keyValue)
    .option('--slots <count>', 'jobs at once, where they may share; 1: never more than one (default: TUNEFLEET_WORKER_SLOTS, or 8)', wholeNumber(1, 64))
    .option('--stop-seconds <count>', 'time to hand a running job back when it is stopped (default: TUNEFLEET_WORKER_STOP_SECONDS, or 30)', wholeNumber(1, 3_600))
    .addHelpText('after', '\nA new worker joins with the token in TUNEFLEET_WORKER_TOKEN ("tunefleet workers tokens create"); for a local service it is found by itself. From then on it has a credential of its own in its folder.\nThe first Ctrl-C lets a running job write a checkpoint and gives it back; the second stops at once.')
    .action(async (options: WorkerOptions) => {
      await runCommand({}, async (_output, signal) => {
        const { controlPlane, workerToken } = await findFleet({ flags: options, environment: process.env, workingDir: process.cwd() });
        const { TUNEFLEET_API_KEY: _key, DATABASE_URL: _database, REDIS_URL: _redis, ...environment } = process.env;
        return runProgram(programFile('worker'), {
          env: {
            ...environment,
            TUNEFLEET_CACHE_DIR: cacheDirectory(process.env),
            TUNEFLEET_CONTROL_PLANE: controlPlane,
            ...(workerToken === undefined ? {} : { TUNEFLEET_WORKER_TOKEN: workerToken }),
            ...(options.name === undefined ? {} : { TUNEFLEET_WORKER_NAME: options.name }),
            ...(options.label === undefined ? {} : { TUNEFLEET_WORKER_LABELS: Object.entries(options.label).map((pair) => pair.join('=')).join(',') }),
            ...(options.slots === undefined ? {} : { TUNEFLEET_WORKER_SLOTS: String(options.slots) }),
            ...(options.stopSeconds === undefined ? {} : { TUNEFLEET_WORKER_STOP_SECONDS: String(options.stopSeconds) }),
            ...(options.dataDir === undefined ? {} : { TUNEFLEET_DATA_DIR: options.dataDir }),
          },
          stop: signal,
        });
      });
    });
}
