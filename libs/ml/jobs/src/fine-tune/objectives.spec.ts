/**
 * Preference and pre-training jobs on a tiny model, with a real engine: every tuner learns preferences and, stopped and resumed, gives the same bits; the reference
 * is the policy the run started from; plain text is counted once an epoch. Numbers are checked elsewhere (`training/src/preference-run.spec.ts`).
 */
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jest } from '@jest/globals';
import { fineTuneSpecSchema, jobKinds, schemaVersionOf, type ArtifactRef, type FineTuneResult, type FineTuneSpec } from '@tunefleet/contracts';
import { systemClock } from '@tunefleet/foundation';
import { ModelResolver } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { tunerSpecs, type TunerKind } from '@tunefleet/ml-tuners';
import { writeTinyModel } from '@tunefleet/testing';
import { runJob } from '../run-job';
import { EngineResources } from '../runtime/engine-resources';
import type { JobEvents, JobOutcome, WrittenFolder } from '../runtime/job-context';
import { StopRequest } from '../runtime/stop-request';

jest.setTimeout(120_000);

let folder: string;
let engine: EngineResources;
let base: { id: string; revision: string };
const inputFiles = new Map<string, string>();
let runs = 0;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'tunefleet-objectives-'));
  await writeTinyModel(join(folder, 'model'));
  const resolver = new ModelResolver({ cacheDirectory: join(folder, 'cache'), hubEndpoint: 'http://127.0.0.1:9', order: [], localRoots: [folder], mirror: { python: 'none' }, catalogue: [] });
  engine = new EngineResources({ device: await openDevice({ backend: 'tensorflow' }), resolver, tokenCacheDirectory: join(folder, 'tokens') });
  const { id, revision } = await resolver.describe(join(folder, 'model'));
  base = { id, revision };
});
afterAll(() => {
  engine.close();
  rmSync(folder, { recursive: true, force: true });
});

const preference = (i: number) =>
  JSON.stringify({
    input: { messages: [{ role: 'user', content: `mail ${i} ${'win the ring '.repeat(i % 3)}` }] },
    preferred_output: [{ role: 'assistant', content: i % 2 === 0 ? 'ham' : 'it is spam' }],
    non_preferred_output: [{ role: 'assistant', content: i % 2 === 0 ? 'spam, surely' : 'ham' }],
  });
const preferences = (from: number, to: number): string => Array.from({ length: to - from }, (_, i) => preference(from + i)).join('\n');

describe.each(Object.keys(tunerSpecs) as TunerKind[])('preferences with %s', (kind) => {
  test('learns, and resumes bit for bit', async () => {
    const spec = dpoSpec({ tuner: { kind }, learningRate: 10 * tunerSpecs[kind].learningRate });
    const whole = await run(spec);
    succeeded(whole.outcome);
    const values = whole.metrics.filter((metrics) => 'train_loss' in metrics);
    expect(values).toHaveLength(4);
    expect(Object.keys(values[0] ?? {}).sort()).toEqual(['grad_norm', 'learning_rate', 'rewards/accuracies', 'rewards/chosen', 'rewards/margins', 'rewards/rejected', 'tokens_per_second', 'train_loss']);
    // Epochs see the same pairs: what was learned in the first shows in the second.
    expect(mean(values.slice(2), 'train_loss')).toBeLessThan(mean(values.slice(0, 2), 'train_loss'));
    expect(mean(values.slice(2), 'rewards/margins')).toBeGreaterThan(mean(values.slice(0, 2), 'rewards/margins'));

    const stopped = await run(spec, null, 3);
    expect(stopped.outcome).toEqual({ type: 'stopped' });
    const resumed = await run(spec, stopped.checkpoints.at(-1)?.dir ?? null);
    expect(comparable([...stopped.metrics, ...resumed.metrics])).toEqual(comparable(whole.metrics));
    expect(hashesOf(resumed.outcome)).toEqual(hashesOf(whole.outcome));
  });
});

test('a fresh adapter starts at its reference, and so does a run that goes on from one', async () => {
  const spec = dpoSpec({ validationFile: input('valid.jsonl', preferences(8, 11)) });
  const first = await run(spec);
  expect(first.metrics[0]?.['train_loss']).toBeCloseTo(Math.log(2), 5);
  expect(first.metrics.find((metrics) => 'valid_loss' in metrics)).toMatchObject({ 'valid_rewards/accuracies': expect.any(Number) });
  expect(first.logs.join('\n')).toContain('log-probabilities of the base model, to which beta 0.3');
  expect(first.logs.join('\n')).toContain('training_file: 8 pairs, ');
  const { dir, files } = succeeded(first.outcome).folder;
  const startAdapter = files.map(({ name }) => input(name, readFileSync(join(dir, name))));
  const onwards = await run({ ...spec, startAdapter });
  expect(onwards.metrics[0]?.['train_loss']).toBeCloseTo(Math.log(2), 5);
  expect(onwards.logs.join('\n')).toContain('log-probabilities of the start adapter');
});

test('a stop before the first step leaves nothing and is no failure', async () => {
  const stop = new StopRequest();
  stop.request(true);
  const { outcome, checkpoints } = await run(dpoSpec({}), null, Infinity, stop);
  expect([outcome, checkpoints]).toEqual([{ type: 'stopped' }, []]);
});

test('plain text: every token once an epoch, in rows that are as even as can be', async () => {
  const text = (i: number) => JSON.stringify({ text: `document ${i}: ${'the mail is ham '.repeat(3 + i)}` });
  const spec = specOf({ objective: { type: 'pretraining' }, trainingFile: input('text.jsonl', Array.from({ length: 6 }, (_, i) => text(i)).join('\n')), maxSequenceLength: 32, epochs: 3 });
  const { outcome, metrics, logs } = await run(spec);
  const { result } = succeeded(outcome);
  const [, rows = NaN, tokens = NaN, longest = NaN] = (/^training_file: (\d+) rows, (\d+) tokens, \d+ of them learned, longest (\d+);/m.exec(logs.join('\n')) ?? []).map(Number);
  expect(rows).toBe(Math.ceil(tokens / 32));
  expect(longest).toBe(Math.ceil(tokens / rows));
  expect(result.trainedTokens).toBe(3 * tokens);
  // The first token of a row is not predicted.
  expect(result.lossTokens).toBe(3 * (tokens - rows));
  expect(result.lossLast).toBeLessThan(result.lossFirst);
  expect(metrics[0]).toHaveProperty('train_mean_token_accuracy');
});

test('rows of another method are refused with the way out', async () => {
  const chat = JSON.stringify({ messages: [{ role: 'user', content: 'q' }, { role: 'assistant', content: 'a' }] });
  await expect(run(dpoSpec({ trainingFile: input('chat.jsonl', chat) }))).rejects.toMatchObject({ code: 'invalid_input', message: expect.stringMatching(/^training_file: row 1: is not a preference row; the method "dpo" learns from pairs of answers: write/) as unknown });
  await expect(run(specOf({ trainingFile: input('pairs.jsonl', preferences(0, 3)) }))).rejects.toThrow('row 1: is a preference row; those are for the method "dpo"');
});

test('a supervised job stays in the first version of the schema, which older engines read; newer ones are refused by them', async () => {
  expect([schemaVersionOf('fine-tune', {}), schemaVersionOf('fine-tune', { method: 'dpo' }), schemaVersionOf('eval', {})]).toEqual([1, 2, 1]);
  expect(schemaVersionOf('eval', { baseQuantisation: { type: 'nf4', doubleQuant: true } })).toBe(2);
  expect([0, 5].map((alpha) => schemaVersionOf('fine-tune', { hyperparameters: { neftune_noise_alpha: alpha } }))).toEqual([1, 3]);
  expect(fineTuneSpecSchema.parse(specOf({}))).not.toHaveProperty('objective');
  await expect(runJob('fine-tune', jobKinds['fine-tune'].schemaVersion + 1, {} as never)).rejects.toMatchObject({ code: 'unavailable', reason: 'job_not_supported' });
});

function specOf(changes: Partial<FineTuneSpec>): FineTuneSpec {
  return {
    base,
    trainingFile: input('train.jsonl', preferences(0, 8)),
    tuner: { kind: 'lora', r: 4, lora_alpha: 8, target_modules: 'all-linear' },
    computeDtype: 'f32',
    seed: 5,
    epochs: 2,
    batchSize: 4,
    maxSequenceLength: 128,
    learningRate: 5e-3,
    schedule: 'constant',
    warmupRatio: 0,
    weightDecay: 0,
    maxGradNorm: 1,
    checkpointEverySteps: 0,
    validateEverySteps: 0,
    microBatchSize: 2,
    ...changes,
  };
}

const dpoSpec = (changes: Partial<FineTuneSpec>): FineTuneSpec => specOf({ objective: { type: 'dpo', beta: 0.3 }, ...changes });

interface Run {
  readonly outcome: JobOutcome<FineTuneResult>;
  readonly metrics: readonly Readonly<Record<string, number>>[];
  readonly checkpoints: readonly WrittenFolder[];
  readonly logs: readonly string[];
}

async function run(spec: FineTuneSpec, resumeDir: string | null = null, stopAfter = Infinity, stop = new StopRequest()): Promise<Run> {
  const outputDir = join(folder, `run-${++runs}`);
  mkdirSync(outputDir);
  const metrics: Readonly<Record<string, number>>[] = [];
  const checkpoints: WrittenFolder[] = [];
  const logs: string[] = [];
  const ignore = () => undefined;
  const events: JobEvents = {
    log: (_level, message) => logs.push(message),
    progress: ignore,
    model: ignore,
    checkpoint: (_step, written) => checkpoints.push(written),
    metrics: (step, values) => {
      metrics.push(values);
      if (step === stopAfter) stop.request(true);
    },
  };
  let time = 0;
  const clock = { ...systemClock, monotonic: () => (time += 1000) };
  const outcome = (await runJob('fine-tune', spec.objective === undefined ? 1 : 2, { spec, inputFiles, resumeDir, outputDir, events, stop, engine, clock })) as JobOutcome<FineTuneResult>;
  return { outcome, metrics, checkpoints, logs };
}

function succeeded(outcome: JobOutcome<FineTuneResult>): { readonly result: FineTuneResult; readonly folder: WrittenFolder } {
  if (outcome.type !== 'succeeded' || !outcome.folder) throw new Error('stopped');
  return { result: outcome.result, folder: outcome.folder };
}

function input(name: string, content: string | Uint8Array): ArtifactRef {
  const sha256 = createHash('sha256').update(content).digest('hex');
  const path = join(folder, sha256);
  writeFileSync(path, content);
  inputFiles.set(sha256, path);
  return { name, sha256, bytes: Buffer.byteLength(content) };
}

const hashesOf = (outcome: JobOutcome<FineTuneResult>) => Object.fromEntries(succeeded(outcome).folder.files.map(({ name, sha256 }) => [name, sha256]));
const mean = (values: Run['metrics'], name: string): number => values.reduce((sum, each) => sum + (each[name] ?? NaN), 0) / values.length;
const comparable = (metrics: Run['metrics']) => metrics.map(({ tokens_per_second: _speed, ...values }) => values);
