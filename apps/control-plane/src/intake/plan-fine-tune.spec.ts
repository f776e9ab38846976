import type { FineTuneRequest } from '@tunefleet/contracts';
import { parseTunerSpec } from '@tunefleet/ml-tuners/specs';
import { totalBytes } from './memory';
import { planFineTune, type FineTuneFacts } from './plan-fine-tune';
import { tinyDescription } from './testing/tiny-description';

const request: FineTuneRequest = {
  model: 'o/m',
  fineTunedModel: 'ft:o/m:team::abc',
  trainingFile: 'file-1',
  validationFile: null,
  suffix: null,
  seed: 5,
  hyperparameters: {},
  tuner: { kind: 'lora' },
  maxSequenceLength: null,
  computeDtype: 'auto',
  requestHash: 'h',
};

const file = (name: string, examples: number, extra: object = {}): FineTuneFacts['training'] => ({
  artifact: { name, sha256: 'a'.repeat(64), bytes: 10 },
  report: { ok: true, format: 'chat', examples, problems: [], problemCount: 0, duplicates: 0, overlap: 0, contentHash: 'c', hashes: new Set(), ...extra },
  lengths: { longest: { line: 3, bytes: 400, tokensExpected: 110, tokensAtMost: 512 }, tokensExpected: 1000 },
});

const facts = (fields: Partial<FineTuneFacts> = {}): FineTuneFacts => ({
  request,
  base: { id: 'o/m', revision: 'r1' },
  model: tinyDescription,
  tuner: parseTunerSpec({ kind: 'lora', target_modules: 'all-linear' }),
  startAdapter: null,
  training: file('training.jsonl', 20),
  validation: null,
  workers: [],
  ...fields,
});

test('a bare request becomes a complete spec', () => {
  const plan = planFineTune(facts());
  expect(plan.workerSpec).toMatchObject({
    base: { id: 'o/m', revision: 'r1' },
    trainingFile: { name: 'training.jsonl' },
    tuner: { kind: 'lora', r: 8, target_modules: 'all-linear' },
    computeDtype: 'auto',
    seed: 5,
    epochs: 5,
    batchSize: 8,
    learningRate: 2e-4,
    maxSequenceLength: 512,
    schedule: 'cosine',
    warmupRatio: 0.03,
    checkpointEverySteps: 0,
  });
  expect(plan.workerSpec).not.toHaveProperty('startAdapter');
  expect(plan.totalSteps).toBe(15);
  expect(plan.settled).toMatchObject({ hyperparameters: { n_epochs: 5, batch_size: 8, learning_rate_multiplier: 1 }, maxSequenceLength: 512, tuner: { r: 8 } });
  expect(plan.notices).toEqual([]);
});

test('what the request says reaches the worker', () => {
  const hyperparameters = { n_epochs: 1, batch_size: 4, micro_batch_size: 2, learning_rate: 0.01, schedule: 'linear', warmup_ratio: 0.1, weight_decay: 0.2, max_grad_norm: 2, checkpoint_every_steps: 3, validate_every_steps: 4 } as const;
  const start = [{ name: 'adapter_model.safetensors', sha256: 'b'.repeat(64), bytes: 5 }];
  const plan = planFineTune(facts({ request: { ...request, hyperparameters, maxSequenceLength: 128, computeDtype: 'f32' }, startAdapter: start, validation: file('validation.jsonl', 4) }));
  expect(plan.workerSpec).toMatchObject({
    startAdapter: start,
    validationFile: { name: 'validation.jsonl' },
    epochs: 1,
    batchSize: 4,
    microBatchSize: 2,
    learningRate: 0.01,
    schedule: 'linear',
    warmupRatio: 0.1,
    weightDecay: 0.2,
    maxGradNorm: 2,
    checkpointEverySteps: 3,
    validateEverySteps: 4,
    maxSequenceLength: 128,
    computeDtype: 'f32',
  });
  expect(plan.totalSteps).toBe(5);
});

test('repeated rows are pointed out', () => {
  const plan = planFineTune(facts({ training: file('training.jsonl', 20, { duplicates: 1 }), validation: file('validation.jsonl', 4, { overlap: 2 }) }));
  expect(plan.notices).toEqual([expect.stringMatching(/^training_file: 1 row is exactly like an earlier one/), expect.stringMatching(/^validation_file: 2 rows are also in training_file/)]);
});

test('files of two formats are refused', () => {
  expect(() => planFineTune(facts({ validation: file('validation.jsonl', 4, { format: 'completion' }) }))).toThrow(expect.objectContaining({ code: 'invalid_input', param: 'validation_file' }));
});

test('a tuner that matches nothing is refused', () => {
  expect(() => planFineTune(facts({ tuner: parseTunerSpec({ kind: 'lora', target_modules: ['nothing_like_it'] }) }))).toThrow(expect.objectContaining({ code: 'invalid_input', param: 'tuner.target_modules' }));
});

test('the estimate grows with rank, and is smaller in bf16', () => {
  const bytes = (rank: number, computeDtype: 'f32' | 'bf16') => totalBytes(planFineTune(facts({ tuner: parseTunerSpec({ kind: 'lora', r: rank, target_modules: 'all-linear' }), request: { ...request, computeDtype } })).memory);
  expect(bytes(16, 'f32')).toBeGreaterThan(bytes(8, 'f32'));
  expect(bytes(8, 'bf16')).toBeLessThan(bytes(8, 'f32') - tinyDescription.parameterCount);
});
