import type { Command } from 'commander';
import { runCommand } from './command';
import { programFile, runProgram } from './run-program';

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
      await runCommand({}, () => runProgram(engineFile(), { args: [name, ...command.args], stop: 'terminal' }));
    });
}

export function engineFile(environment: NodeJS.ProcessEnv = process.env): string {
  return environment['TUNEFLEET_ENGINE_FILE'] || programFile('engine');
}
