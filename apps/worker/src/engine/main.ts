import { errorCode, errorMessage } from '@tunefleet/foundation';
import { combineCommand } from './commands/combine';
import { exportCommand } from './commands/export';
import { generateCommand } from './commands/generate';
import { logitsCommand } from './commands/logits';
import { probeCommand } from './commands/probe';
import { serveAgent } from './serve';

/** `engine.mjs` without arguments is the engine of an agent; these run once on a terminal. */
const commands: Readonly<Record<string, (args: string[]) => Promise<void>>> = {
  probe: probeCommand,
  generate: generateCommand,
  logits: logitsCommand,
  export: exportCommand,
  combine: combineCommand,
};

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

async function main([name, ...args]: readonly string[]): Promise<void> {
  if (name === undefined) {
    if (process.send === undefined) throw new Error(`the engine is started by its agent; on a terminal use one of: ${Object.keys(commands).join(', ')}`);
    return serveAgent();
  }
  const command = commands[name];
  if (command === undefined) throw new Error(`"${name}" is not a command of the engine; it has ${Object.keys(commands).join(', ')}`);
  await command(args);
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`tunefleet engine: ${errorMessage(error)}\n`);
  const isUsage = errorCode(error) === 'invalid_input' || (error instanceof TypeError && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS'));
  process.exit(isUsage ? EXIT_USAGE : EXIT_FAILED);
}
