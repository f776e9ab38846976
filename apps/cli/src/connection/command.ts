import type { Command } from 'commander';
import { TunefleetClient } from '@tunefleet/client-sdk';
import { describeError, processOutput, type Output } from '../render/output';
import { EXIT, exitCodeOf, type ExitCode } from '../render/exit-code';
import { explainUnreachable, findConnection } from './find-connection';

const SAME_SIGNAL_MS = 500;

/** Options every command that talks to a server takes. */
export interface ConnectionOptions {
  readonly url?: string;
  readonly key?: string;
  readonly dataDir?: string;
  readonly json?: boolean;
}

/** What such a command gets to work with. */
export interface ServerContext<Options> {
  readonly client: TunefleetClient;
  readonly output: Output;
  readonly options: Options;
  /** Aborted by the first Ctrl-C (and by SIGTERM); the second ends the process at once. */
  readonly signal: AbortSignal;
}

/** @returns the exit code; nothing means 0 */
export type ServerAction<Options> = (context: ServerContext<Options>, args: readonly string[]) => Promise<ExitCode | void>;

/**
 * Makes `command` one that talks to a server: adds the options, finds the server, turns errors into one message and an exit code.
 */
export function serverCommand<Options extends object>(command: Command, action: ServerAction<Options & ConnectionOptions>): Command {
  return addConnectionOptions(command).action(async () => {
    const options = command.optsWithGlobals<Options & ConnectionOptions>();
    await runCommand(options, async (output, signal) => {
      const connection = await findConnection({ flags: options, environment: process.env, workingDir: process.cwd() });
      const client = new TunefleetClient({ baseUrl: connection.url, apiKey: connection.apiKey });
      try {
        return await action({ client, output, options, signal }, command.args);
      } catch (error) {
        throw explainUnreachable(error, connection);
      }
    });
  });
}

/** Runs `work` as the body of a command: Ctrl-C aborts its signal, an error becomes a message and an exit code. */
export async function runCommand(options: { readonly json?: boolean }, work: (output: Output, signal: AbortSignal) => Promise<number | void>): Promise<void> {
  const output = processOutput({ json: options.json ?? false });
  const interruption = new AbortController();
  let interruptedAt = -Infinity;
  const interrupt = (): void => {
    // npm and other parents pass on a signal that the terminal has already sent to all of us: that is still the first Ctrl-C.
    if (performance.now() - interruptedAt < SAME_SIGNAL_MS) return;
    if (interruption.signal.aborted) process.exit(EXIT.interrupted);
    interruptedAt = performance.now();
    interruption.abort();
  };
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  try {
    process.exitCode = (await work(output, interruption.signal)) ?? EXIT.ok;
  } catch (error) {
    process.exitCode = interruption.signal.aborted ? EXIT.interrupted : exitCodeOf(error);
    if (!interruption.signal.aborted) output.note(describeError(error, output.json));
  } finally {
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
  }
}

/** Options by which a command finds its server. */
export function addConnectionOptions(command: Command): Command {
  return command
    .option('--url <url>', 'server to talk to (default: TUNEFLEET_URL, or the local service)')
    .option('--key <key>', "API key (default: TUNEFLEET_API_KEY, or the local service's own)")
    .option('--data-dir <dir>', 'data folder of the local service (default: TUNEFLEET_DATA_DIR, or .tunefleet)')
    .option('--json', 'print JSON');
}
