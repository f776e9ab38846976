import { Command } from 'commander';
import { createFineTuningJobSchema } from '@tunefleet/contracts';
import { addCreateOptions, createJobRequest, type CreateJobOptions } from './jobs-create';

function requestOf(...options: string[]) {
  const command = addCreateOptions(new Command().exitOverride().configureOutput({ writeErr: () => undefined }));
  command.parse(['--model', 'base', '--file', 'rows.jsonl', ...options], { from: 'user' });
  return createFineTuningJobSchema.parse(createJobRequest(command.opts<CreateJobOptions>(), 'file-1', undefined));
}

test.each([
  [[], { type: 'supervised', supervised: { hyperparameters: {} } }],
  [['--epochs', '2'], { type: 'supervised', supervised: { hyperparameters: { n_epochs: 2 } } }],
  [['--method', 'dpo', '--beta', '0.2', '--batch-size', '4'], { type: 'dpo', dpo: { hyperparameters: { beta: 0.2, batch_size: 4 } } }],
  [['--method', 'pretraining', '--learning-rate', '1e-4'], { type: 'pretraining', pretraining: { hyperparameters: { learning_rate: 1e-4 } } }],
])('jobs create %j', (options, method) => expect(requestOf(...options).method).toEqual(method));

test('what does not go together is refused', () => {
  expect(() => requestOf('--beta', '0.2')).toThrow('--beta goes with --method dpo, not supervised');
  expect(() => requestOf('--method', 'ppo')).toThrow(/Allowed choices are supervised, dpo, pretraining/);
});

test('sharing is declined, or left to the team', () => {
  expect([requestOf().share, requestOf('--no-share').share]).toEqual([undefined, false]);
});
