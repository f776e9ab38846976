import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { TunefleetClient } from '@tunefleet/client-sdk';
import { TunefleetError } from '@tunefleet/foundation';
import { addConnectionOptions, runCommand, type ConnectionOptions } from '../connection/command';
import { engineFile } from '../connection/engine-command';
import { explainUnreachable, findConnection } from '../connection/find-connection';
import { findAdapter } from '../connection/find-adapter';
import { pullAdapter } from '../connection/pull-adapter';
import { runProgram } from '../connection/run-program';

/** `adapters export`: the engine does it, on this machine; an adapter that is not in a folder is fetched from the server first. */
export function registerAdaptersExport(adapters: Command): void {
  const command = adapters
    .command('export')
    .argument('[folder, id or name]')
    .description('write an adapter merged into its base, or in the layout of other programs, on this machine')
    .allowUnknownOption()
    .allowExcessArguments()
    .helpOption(false);
  addConnectionOptions(command).action(async () => {
    const options = command.optsWithGlobals<ConnectionOptions>();
    const [name = '--help', ...rest] = command.args;
    await runCommand(options, async (_output, signal) => {
      const run = (args: readonly string[]) => runProgram(engineFile(), { args: ['export', ...args], stop: 'terminal' });
      if (name === '--help' || name === '-h' || rest.includes('--help')) return run(['--help']);
      if (name.startsWith('-')) throw new TunefleetError('invalid_input', `the adapter comes first: tunefleet adapters export <folder, id or name> ${name} ...`);
      if (existsSync(name)) return run(['--adapter', resolve(name), ...rest]);
      return withPulled(name, options, signal, (folder) => run(['--adapter', folder, ...rest]));
    });
  });
}

async function withPulled<T>(name: string, options: ConnectionOptions, signal: AbortSignal, work: (folder: string) => Promise<T>): Promise<T> {
  const connection = await findConnection({ flags: options, environment: process.env, workingDir: process.cwd() });
  const client = new TunefleetClient({ baseUrl: connection.url, apiKey: connection.apiKey });
  const temporary = await mkdtemp(join(tmpdir(), 'tunefleet-adapter-'));
  try {
    const folder = join(temporary, 'adapter');
    try {
      await pullAdapter(client, await findAdapter(client, name), folder, signal);
    } catch (error) {
      throw explainUnreachable(error, connection);
    }
    return await work(folder);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}
