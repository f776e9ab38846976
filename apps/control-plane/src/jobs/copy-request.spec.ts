import type { JobRecord } from '@tunefleet/ports';
import { copyEval, copyFineTune } from './copy-request';

const hyperparameters = { n_epochs: 3, batch_size: 4, learning_rate: 0.001 };
const job = {
  id: 'ftjob-1',
  priority: 7,
  metadata: { owner: 'me' },
  workerSelector: { gpu: 'a100' },
  spec: {
    model: 'base',
    trainingFile: 'file-1',
    validationFile: 'file-2',
    suffix: 'mine',
    seed: 5,
    hyperparameters,
    tuner: { kind: 'lora', r: 4 },
    maxSequenceLength: 128,
    computeDtype: 'f32',
    share: false,
    requestHash: 'hash',
    fineTunedModel: 'ft:base:me:mine:1',
    asked: { hyperparameters, tuner: { kind: 'lora', r: 4 }, maxSequenceLength: 128 },
  },
} as unknown as JobRecord;

const parametersOf = (changes: Readonly<Record<string, unknown>>) => copyFineTune(job, changes).method?.supervised?.hyperparameters;

test('a copy has all the original was asked for', () => {
  expect(copyFineTune(job, {})).toMatchObject({ model: 'base', validation_file: 'file-2', suffix: 'mine', seed: 5, priority: 7, metadata: { owner: 'me' }, worker_selector: { gpu: 'a100' }, max_seq_length: 128, share: false });
  expect(parametersOf({})).toEqual(hyperparameters);
});

test('null drops a field, as if the original had not had it', () => {
  const dropped = ['validation_file', 'suffix', 'seed', 'metadata', 'max_seq_length', 'tuner', 'worker_selector', 'share'];
  const copy: Record<string, unknown> = copyFineTune(job, { ...Object.fromEntries(dropped.map((name) => [name, null])), priority: 1 });
  for (const name of dropped) expect([name, copy[name]]).toEqual([name, undefined]);
  expect(copy['priority']).toBe(1);
});

test.each([
  [{ hyperparameters: { n_epochs: null, batch_size: 8 } }, { batch_size: 8, learning_rate: 0.001 }],
  [{ method: { type: 'supervised', supervised: { hyperparameters: { learning_rate: null } } } }, { n_epochs: 3, batch_size: 4 }],
  [{ hyperparameters: null }, {}],
  [{ method: null }, {}],
])('null drops hyperparameters: %j', (changes, left) => expect(parametersOf(changes)).toEqual(left));

describe('of a job that learned preferences', () => {
  const original = { ...job, spec: { ...job.spec, method: 'dpo', asked: { hyperparameters: { ...hyperparameters, beta: 0.3 }, tuner: null, maxSequenceLength: null } } } as unknown as JobRecord;
  const methodOf = (changes: Readonly<Record<string, unknown>>) => copyFineTune(original, changes).method;

  test.each([
    [{}, { type: 'dpo', dpo: { hyperparameters: { ...hyperparameters, beta: 0.3 } } }],
    [{ method: { dpo: { hyperparameters: { beta: 0.5 } } } }, { type: 'dpo', dpo: { hyperparameters: { ...hyperparameters, beta: 0.5 } } }],
    [{ method: { dpo: { hyperparameters: { beta: null } } } }, { type: 'dpo', dpo: { hyperparameters } }],
    [{ hyperparameters: { n_epochs: 1 } }, { type: 'dpo', dpo: { hyperparameters: { ...hyperparameters, n_epochs: 1, beta: 0.3 } } }],
    [{ method: { type: 'supervised' } }, { type: 'supervised', supervised: { hyperparameters } }],
    [{ method: null }, { type: 'supervised', supervised: { hyperparameters: {} } }],
  ])('with %j', (changes, method) => expect(methodOf(changes)).toEqual(method));
});

test('what a request must have cannot be dropped' , () => {
  expect(() => copyFineTune(job, { training_file: null })).toThrow(expect.objectContaining({ code: 'invalid_input', param: 'training_file' }));
  expect(() => copyFineTune(job, { colour: 'red' })).toThrow(expect.objectContaining({ param: 'colour' }));
});

test('of an eval, too', () => {
  const evalJob = { ...job, spec: { model: 'base', compareTo: [], file: 'file-1', metric: { type: 'exact_match', max_tokens: 8, ignore_case: false }, limit: 10, samples: 3, maxSequenceLength: null, computeDtype: 'auto', requestHash: 'hash' } } as unknown as JobRecord;
  expect(copyEval(evalJob, {})).toMatchObject({ limit: 10, metadata: { owner: 'me' } });
  const copy = copyEval(evalJob, { limit: null, metadata: null });
  expect([copy.limit, copy.metadata]).toEqual([undefined, undefined]);
});
