import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from 'commander';
import { errorMessage, sleep, TunefleetError } from '@tunefleet/foundation';
import { z } from 'zod';
import { runCommand } from '../connection/command';
import { dataDirOf } from '../connection/find-connection';

const STOP_MS = 60_000;
const POLL_MS = 100;
const serverFileSchema = z.object({ url: z.url(), pid: z.int().min(2) });

/** Stops the service that runs from a data folder, wherever it was started. */
export function registerDown(program: Command): void {
  program
    .command('down')
    .description('stop the service that runs from the data folder; running jobs go on when it is started again')
    .option('--data-dir <dir>', 'its data folder (default: TUNEFLEET_DATA_DIR, or .tunefleet)')
    .action(async (options: { readonly dataDir?: string }) => {
      await runCommand({}, async (output, signal) => {
        const dataDir = dataDirOf(options, process.env, process.cwd());
        const server = await readServer(join(dataDir, 'server.json'));
        // A killed service leaves its file behind, and its process id may be another's by now.
        if (server === null || !(await answers(server.url))) throw new TunefleetError('not_found', `no service runs from ${dataDir}`);
        process.kill(server.pid, 'SIGTERM');
        for (const deadline = performance.now() + STOP_MS; await isAlive(server.pid); await sleep(POLL_MS, signal)) {
          signal.throwIfAborted();
          if (performance.now() > deadline) throw new TunefleetError('unavailable', `process ${server.pid} did not stop within ${STOP_MS / 1000} s; see ${join(dataDir, 'logs')}`);
        }
        output.note('stopped');
      });
    });
}

async function readServer(file: string): Promise<z.infer<typeof serverFileSchema> | null> {
  try {
    return serverFileSchema.parse(JSON.parse(await readFile(file, 'utf8')));
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw new TunefleetError('invalid_input', `${file} cannot be read (${errorMessage(error)}): stop the service's processes, then remove it`);
  }
}

async function answers(url: string): Promise<boolean> {
  try {
    return (await fetch(`${url}/healthz`, { signal: AbortSignal.timeout(POLL_MS * 20) })).ok;
  } catch {
    return false;
  }
}

/** A process that has ended but that nobody has asked about (in containers without an init) counts as gone. */
async function isAlive(pid: number): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return !stat.slice(stat.lastIndexOf(')')).startsWith(') Z');
}
