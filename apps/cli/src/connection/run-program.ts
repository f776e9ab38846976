import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TunefleetError } from '@tunefleet/foundation';

/** Where a program of this product is built: beside the command line's own bundle. */
export function programFile(name: 'engine' | 'worker' | 'control-plane'): string {
  return join(dirname(fileURLToPath(import.meta.url)), `${name}.mjs`);
}

export interface RunOptions {
  readonly args?: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
  /**
   * `terminal`: the child gets Ctrl-C from the terminal itself; only a SIGTERM sent to us is passed on.
   * `signal`: the child is kept from the terminal and asked to stop (SIGTERM) when this aborts; it ends with us however we end.
   */
  readonly stop: 'terminal' | AbortSignal;
}

/**
 * Runs a Node program on this terminal to its end.
 * @returns its exit code; 128 + the signal's number when one ended it
 * @throws unavailable when it is not built
 */
export async function runProgram(file: string, { args = [], env = process.env, stop }: RunOptions): Promise<number> {
  if (!existsSync(file)) throw new TunefleetError('unavailable', `${file} is not built: run "npm run setup"`);
  const apart = stop !== 'terminal';
  const child = spawn(process.execPath, ['--enable-source-maps', file, ...args], { env, detached: apart, stdio: ['inherit', 'inherit', 'inherit', ...(apart ? (['ipc'] as const) : [])] });
  const end = (): void => void child.kill('SIGTERM');
  if (stop === 'terminal') process.on('SIGTERM', end);
  else if (stop.aborted) end();
  else stop.addEventListener('abort', end, { once: true });
  try {
    return await new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])));
    });
  } finally {
    if (stop === 'terminal') process.off('SIGTERM', end);
    else stop.removeEventListener('abort', end);
  }
}
