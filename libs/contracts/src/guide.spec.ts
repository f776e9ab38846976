import { readFileSync } from 'node:fs';
import { createFineTuningJobSchema, supervisedHyperparametersSchema } from './openai';

/** The tables of the user guide name what the API takes, all of it and nothing else. */
const guide = readFileSync(new URL('../../../docs/guide/api.md', import.meta.url), 'utf8');
const tables = guide.slice(guide.indexOf('## What a fine-tune job takes'), guide.indexOf('## The life of a job'));

function firstColumn(table: string): string[] {
  return [...table.matchAll(/^\| `(\w+)` \|/gm)].map(([, name = '']) => name);
}

test('hyper-parameters', () => {
  const [first = ''] = tables.split('Beside them in the request');
  expect(firstColumn(first).sort()).toEqual(Object.keys(supervisedHyperparametersSchema.shape).sort());
});

test('fields of the request', () => {
  const [, second = ''] = tables.split('Beside them in the request');
  const elsewhere = ['model', 'training_file', 'validation_file', 'method', 'hyperparameters', 'integrations'];
  expect([...firstColumn(second), ...elsewhere].sort()).toEqual(Object.keys(createFineTuningJobSchema.shape).sort());
});
