import { Command } from 'commander';
import { registerAdapters } from './commands/adapters';
import { registerDoctor } from './commands/doctor';
import { registerDown } from './commands/down';
import { registerEvals } from './commands/evals';
import { registerFiles } from './commands/files';
import { registerGenerate } from './commands/generate';
import { registerJobs } from './commands/jobs';
import { registerModels } from './commands/models';
import { registerQuickstart } from './commands/quickstart';
import { registerRetention } from './commands/retention';
import { registerTeams } from './commands/teams';
import { registerTuners } from './commands/tuners';
import { registerUp } from './commands/up';
import { registerUsage } from './commands/usage';
import { registerWorker } from './commands/worker';
import { registerWorkers } from './commands/workers';

const COMMANDS = [
  ...[registerQuickstart, registerUp, registerDown, registerWorker, registerDoctor],
  ...[registerFiles, registerJobs, registerEvals, registerAdapters, registerModels, registerTuners, registerTeams, registerUsage, registerWorkers, registerRetention, registerGenerate],
];

/** The whole command line; one file per topic in `commands/`. */
export function createProgram(): Command {
  const program = new Command('tunefleet')
    .description('Fine-tuning as a service on your own single-GPU machines')
    .version('0.1.0')
    .showHelpAfterError('(add --help for the options)');
  for (const register of COMMANDS) register(program);
  return program;
}
