import type { Command } from 'commander';
import { engineCommand } from '../connection/engine-command';

/** Commands that run the engine on this machine, without a server. */
export function registerGenerate(program: Command): void {
  engineCommand(program.command('generate').description('answer a prompt with a model, with or without an adapter, on this machine'), 'generate');
  engineCommand(program.command('logits').description("print a model's logits for a prompt, to compare with other software"), 'logits');
}
