import { Command } from 'commander';
import { registerAdapters } from './commands/adapters';
import { registerDoctor } from './commands/doctor';
import { registerEvals } from './commands/evals';
import { registerFiles } from './commands/files';
import { registerGenerate } from './commands/generate';
import { registerJobs } from './commands/jobs';
import { registerModels } from './commands/models';
import { registerUp } from './commands/up';
import { registerWorker } from './commands/worker';
import { registerWorkers } from './commands/workers';

/** The whole command line; one file per topic in `commands/`. */
export function createProgram(): Command {
  const program = new Command('tunefleet')
    .description('Fine-tuning as a service on your own single-GPU machines')
    .version('0.1.0')
    .showHelpAfterError('(add --help for the options)');
  for (const register of [registerUp, registerWorker, registerDoctor, registerFiles, registerJobs, registerEvals, registerAdapters, registerModels, registerWorkers, registerGenerate]) {
    register(program);
  }
  return program;
}
