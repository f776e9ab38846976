import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { TunefleetError } from '@tunefleet/foundation';
import { runCommand } from './command';

/**
 * Makes `command` a front of `engine.mjs <name>`, run as a child process on this terminal: native code stays out of this one, and the
 * engine's own options (`--help` too) are passed on as written.
 */
export function engineCommand(command: Command, name: string): Command {
  return command
    .allowUnknownOption()
    .allowExcessArguments()
    .helpOption(false)
    .action(async () => {
      await runCommand({}, async () => {
        return runEngine([name, ...command.args]);
      });
    });
}

/** @returns the engine's exit code; 128 + the signal's number when one ended it */
export async function runEngine(args: readonly string[]): Promise<number> {
  const file = engineFile();
  if (!existsSync(file)) throw new TunefleetError('unavailable', `the engine is not built (${file} is missing): run "npm run setup"`);
  // Ctrl-C reaches the child from the terminal itself; here it is only waited for.
  const child = spawn(process.execPath, [file, ...args], { stdio: 'inherit' });
  const forward = (signal: NodeJS.Signals): void => void child.kill(signal);
  process.on('SIGTERM', forward);
  try {
    return await new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])));
    });
  } finally {
    process.off('SIGTERM', forward);
  }
}

/** Built beside the command line's bundle. */
export function engineFile(environment: NodeJS.ProcessEnv = process.env): string {
  return environment['TUNEFLEET_ENGINE_FILE'] || join(dirname(fileURLToPath(import.meta.url)), 'engine.mjs');
}
