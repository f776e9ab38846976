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

/** `adapters export`, `combine` and `generate`: the engine does it, on this machine; adapters that are not in a folder are fetched from the server first. */
export function registerAdaptersExport(adapters: Command): void {
  localCommand(adapters.command('export').description('write an adapter merged into its base, or in the layout of other programs, on this machine'), 'export');
  localCommand(adapters.command('combine').description('make one LoRA from several, on this machine'), 'combine');
  localCommand(adapters.command('generate').description('answer a prompt with adapters active together, on this machine'), 'generate');
}

/** Words up to the first option are adapters; the engine's own options are passed on as written. */
function localCommand(command: Command, name: 'export' | 'combine' | 'generate'): void {
  addConnectionOptions(command.argument('[folders, ids or names...]').allowUnknownOption().allowExcessArguments().helpOption(false)).action(async () => {
    const options = command.optsWithGlobals<ConnectionOptions>();
    const first = command.args.findIndex((word) => word.startsWith('-'));
    const [names, rest] = first < 0 ? [command.args, []] : [command.args.slice(0, first), command.args.slice(first)];
    await runCommand(options, async (_output, signal) => {
      const run = (args: readonly string[]) => runProgram(engineFile(), { args: [name, ...args], stop: 'terminal' });
      if (command.args.length === 0 || rest.includes('--help') || rest.includes('-h')) return run(['--help']);
      if (names.length === 0) throw new TunefleetError('invalid_input', `adapters come first: tunefleet adapters ${name} <folder, id or name> ${rest[0] ?? ''} ...`);
      return withFolders(names, options, signal, (folders) => run([...folders.flatMap((folder) => ['--adapter', folder]), ...rest]));
    });
  });
}

async function withFolders<T>(names: readonly string[], options: ConnectionOptions, signal: AbortSignal, work: (folders: readonly string[]) => Promise<T>): Promise<T> {
  if (names.every((name) => existsSync(name))) return work(names.map((name) => resolve(name)));
  const connection = await findConnection({ flags: options, environment: process.env, workingDir: process.cwd() });
  const client = new TunefleetClient({ baseUrl: connection.url, apiKey: connection.apiKey });
  const temporary = await mkdtemp(join(tmpdir(), 'tunefleet-adapters-'));
  try {
    const folders: string[] = [];
    for (const [index, name] of names.entries()) folders.push(existsSync(name) ? resolve(name) : await pulled(client, name, join(temporary, `adapter-${index}`), signal).catch((error: unknown) => { throw explainUnreachable(error, connection); }));
    return await work(folders);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

async function pulled(client: TunefleetClient, name: string, folder: string, signal: AbortSignal): Promise<string> {
  await pullAdapter(client, await findAdapter(client, name), folder, signal);
  return folder;
}
