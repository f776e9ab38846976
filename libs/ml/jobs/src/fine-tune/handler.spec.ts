/** Fine-tune jobs on a tiny random model: what is reported, what lies in the folders, and that a run cut in two equals a whole one. */
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jest } from '@jest/globals';
import { fineTuneResultSchema, type ArtifactRef, type FineTuneResult, type FineTuneSpec } from '@tunefleet/contracts';
import { systemClock, TunefleetError } from '@tunefleet/foundation';
import { ModelResolver } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { loadAdapter } from '@tunefleet/ml-tuners';
import { writeTinyModel } from '@tunefleet/testing';
import { runJob } from '../run-job';
import { EngineResources } from '../runtime/engine-resources';
import type { JobEvents, JobOutcome, Progress, WrittenFolder } from '../runtime/job-context';
import { StopRequest } from '../runtime/stop-request';

jest.setTimeout(60_000);

interface Seen {
  readonly outputDir: string;
  readonly logs: string[];
  readonly metrics: { step: number; values: Readonly<Record<string, number>> }[];
  readonly progress: Progress[];
  readonly checkpoints: { step: number; folder: WrittenFolder; metrics: Readonly<Record<string, number>> }[];
}

let folder: string;
let engine: EngineResources;
let base: { id: string; revision: string };
const inputFiles = new Map<string, string>();
let runs = 0;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'tunefleet-fine-tune-'));
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

function input(name: string, content: string | Uint8Array): ArtifactRef {
  const sha256 = createHash('sha256').update(content).digest('hex');
  const path = join(folder, sha256);
  writeFileSync(path, content);
  inputFiles.set(sha256, path);
  return { name, sha256, bytes: Buffer.byteLength(content) };
}

const row = (index: number): string =>
  JSON.stringify({ messages: [{ role: 'user', content: `mail ${index} ${'win the ring '.repeat(index % 3)}` }, { role: 'assistant', content: index % 2 === 0 ? 'ham' : 'spam' }] });
const rows = (from: number, to: number): string => Array.from({ length: to - from }, (_, index) => row(from + index)).join('\n');

function specOf(changes: Partial<FineTuneSpec> = {}): FineTuneSpec {
  return {
    base,
    trainingFile: input('train.jsonl', rows(0, 14)),
    validationFile: input('valid.jsonl', rows(14, 18)),
    tuner: { kind: 'lora', r: 4, lora_alpha: 8, lora_dropout: 0.05, target_modules: 'all-linear' },
    computeDtype: 'f32',
    seed: 5,
    epochs: 2,
    batchSize: 4,
    maxSequenceLength: 128,
    learningRate: 1e-2,
    schedule: 'cosine',
    warmupRatio: 0,
    weightDecay: 0,
    maxGradNorm: 1,
    checkpointEverySteps: 0,
    validateEverySteps: 0,
    microBatchSize: 2,
    ...changes,
  };
}

/** @param react called with what was just reported; may ask for a stop */
async function run(spec: FineTuneSpec, resumeDir: string | null = null, react: (what: 'metrics' | 'validate', step: number, stop: StopRequest) => void = () => undefined): Promise<[JobOutcome<FineTuneResult>, Seen]> {
  const seen: Seen = { outputDir: join(folder, `run-${++runs}`), logs: [], metrics: [], progress: [], checkpoints: [] };
  mkdirSync(seen.outputDir);
  const stop = new StopRequest();
  const events: JobEvents = {
    log: (_level, message) => seen.logs.push(message),
    metrics: (step, values) => {
      seen.metrics.push({ step, values });
      react('metrics', step, stop);
    },
    progress: (progress) => {
      seen.progress.push(progress);
      if (progress.phase === 'validate') react('validate', progress.step, stop);
    },
    checkpoint: (step, written, metrics) => seen.checkpoints.push({ step, folder: written, metrics }),
    model: () => undefined,
  };
  // The meter thins out reports by time; this clock makes each one due.
  let time = 0;
  const clock = { ...systemClock, monotonic: () => (time += 1000) };
  const outcome = await runJob('fine-tune', 1, { spec, inputFiles, resumeDir, outputDir: seen.outputDir, events, stop, engine, clock });
  return [outcome as JobOutcome<FineTuneResult>, seen];
}

const filesOf = (written: WrittenFolder) => Object.fromEntries(written.files.map(({ name, sha256 }) => [name, sha256]));
const lossesOf = (...parts: Seen[]) => parts.flatMap(({ metrics }) => metrics.map(({ step, values: { tokens_per_second: _speed, ...values } }) => ({ step, values })));

let whole: FineTuneResult;
let wholeSeen: Seen;
let wholeFolder: WrittenFolder;

test('trains, reports every step, and leaves a PEFT adapter', async () => {
  const [outcome, seen] = await run(specOf());
  if (outcome.type !== 'succeeded') throw new Error('stopped');
  [whole, wholeSeen, wholeFolder] = [outcome.result, seen, outcome.folder];
  expect(fineTuneResultSchema.parse(whole)).toMatchObject({ steps: 8, computeDtype: 'f32' });
  expect(whole.lossLast).toBeLessThan(whole.lossFirst);
  // Scalars that the device keeps are counted in the one and not in the other.
  const predicted = whole.predictedDeviceBytes ?? NaN;
  expect(Math.abs(whole.peakDeviceBytes / predicted - 1)).toBeLessThan(0.02);
  expect(seen.logs).toContain(`memory: ${Math.ceil(whole.peakDeviceBytes / 1e6)} MB on the device at the peak, ${Math.ceil(predicted / 1e6)} MB were foretold; ${Math.ceil(whole.peakRssBytes / 1e6)} MB of the process`);
  const steps = seen.metrics.filter(({ values }) => 'train_loss' in values);
  expect(steps.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  expect(Object.keys(steps[0]?.values ?? {}).sort()).toEqual(['grad_norm', 'learning_rate', 'tokens_per_second', 'train_loss', 'train_mean_token_accuracy']);
  expect([steps[0]?.values['train_loss'], steps.at(-1)?.values['train_loss']]).toEqual([whole.lossFirst, whole.lossLast]);
  const validations = seen.metrics.filter(({ values }) => 'valid_loss' in values);
  expect(validations.map(({ step }) => step)).toEqual([4, 8]);
  expect(validations.at(-1)?.values['valid_loss']).toBe(whole.validLoss);
  expect(seen.progress.at(-1)).toMatchObject({ step: 8, totalSteps: 8, phase: 'save' });
  expect(Object.keys(filesOf(wholeFolder))).toEqual(['README.md', 'adapter_config.json', 'adapter_model.safetensors']);
  using opened = await engine.openModel(base, 'f32');
  const { model } = opened;
  const adapter = await loadAdapter(model, wholeFolder.dir);
  expect(adapter.values.length).toBe(whole.trainableParameters);
  adapter.dispose();
});

test('checkpoints lie at the ends of epochs and hold the adapter too', () => {
  expect(wholeSeen.checkpoints.map(({ step }) => step)).toEqual([4, 8]);
  const last = wholeSeen.checkpoints.at(-1);
  expect(last?.metrics).toMatchObject({ step: 8, train_loss: whole.lossLast, valid_loss: whole.validLoss });
  expect(readdirSync(last?.folder.dir ?? '').sort()).toEqual(['README.md', 'adapter_config.json', 'adapter_model.safetensors', 'trainer_state.json', 'trainer_state.safetensors']);
  expect(filesOf(last?.folder as WrittenFolder)['adapter_model.safetensors']).toBe(filesOf(wholeFolder)['adapter_model.safetensors']);
});

test.each([
  ['within an epoch', 'metrics', 3],
  ['while it validates', 'validate', 4],
] as const)('a run stopped %s and resumed ends like one that was not', async (_when, what, at) => {
  const [first, before] = await run(specOf(), null, (kind, step, stop) => {
    if (kind === what && step === at) stop.request(true);
  });
  expect(first).toEqual({ type: 'stopped' });
  expect(before.checkpoints.map(({ step }) => step)).toEqual([at]);
  const [second, after] = await run(specOf(), before.checkpoints[0]?.folder.dir);
  if (second.type !== 'succeeded') throw new Error('stopped');
  expect(lossesOf(before, after)).toEqual(lossesOf(wholeSeen));
  expect(filesOf(second.folder)).toEqual(filesOf(wholeFolder));
  expect({ ...second.result, lossTokens: 0 }).toMatchObject({ steps: 8, trainedTokens: whole.trainedTokens, lossFirst: whole.lossFirst, lossLast: whole.lossLast, validLoss: whole.validLoss });
});

test('a run resumed at its end only saves', async () => {
  const [outcome, seen] = await run(specOf(), wholeSeen.checkpoints.at(-1)?.folder.dir);
  expect(outcome).toMatchObject({ type: 'succeeded', result: { steps: 8, lossFirst: whole.lossFirst, validLoss: whole.validLoss, tokensPerSecond: 0 } });
  expect(seen.metrics).toEqual([]);
});

test('a stop without a checkpoint writes none', async () => {
  const [outcome, seen] = await run(specOf(), null, (_kind, step, stop) => {
    if (step === 2) stop.request(false);
  });
  expect(outcome).toEqual({ type: 'stopped' });
  expect(seen.checkpoints).toEqual([]);
  expect(readdirSync(seen.outputDir)).toEqual([]);
});

test('checkpoints and validation come as often as asked', async () => {
  const [, seen] = await run(specOf({ epochs: 1, checkpointEverySteps: 3, validateEverySteps: 2 }));
  expect(seen.checkpoints.map(({ step }) => step)).toEqual([3, 4]);
  expect(seen.metrics.filter(({ values }) => 'valid_loss' in values).map(({ step }) => step)).toEqual([2, 4]);
});

test('a checkpoint of other settings or data is refused', async () => {
  const dir = wholeSeen.checkpoints[0]?.folder.dir ?? '';
  await expect(run(specOf({ learningRate: 2e-2 }), dir)).rejects.toMatchObject({ code: 'incompatible_artifact', reason: 'bad_checkpoint' });
  await expect(run(specOf({ trainingFile: input('other.jsonl', rows(1, 15)) }), dir)).rejects.toThrow(/other training data/);
});

test('training goes on from an adapter, whose rank and targets must be kept', async () => {
  const startAdapter = wholeFolder.files.map(({ name }) => input(name, readFileSync(join(wholeFolder.dir, name))));
  const [outcome] = await run(specOf({ startAdapter, epochs: 1 }));
  if (outcome.type !== 'succeeded') throw new Error('stopped');
  expect(outcome.result.lossFirst).toBeLessThan(whole.lossFirst - 0.3 * (whole.lossFirst - whole.lossLast));
  await expect(run(specOf({ startAdapter, tuner: { kind: 'lora', r: 8, target_modules: 'all-linear' } }))).rejects.toMatchObject({
    code: 'incompatible_artifact',
    param: 'tuner',
    message: expect.stringMatching(/\[4, 32\] in the adapter and \[8, 32\] in the tuner/) as string,
  });
});

test.each([
  ['a row without an answer', { trainingFile: '{"messages":[{"role":"user","content":"hello"}]}' }, 'training_file', /row 2/],
  ['a row that is too long', { trainingFile: JSON.stringify({ prompt: 'a', completion: 'qx'.repeat(200) }) }, 'training_file', /row 2 has \d+ tokens, more than the maximum sequence length 128/],
  ['a bad row for validation', { validationFile: 'nonsense' }, 'validation_file', /row 2/],
] as const)('%s fails the job with its row number', async (_what, bad, param, message) => {
  const [name, line] = Object.entries(bad)[0] as ['trainingFile' | 'validationFile', string];
  const good = line.startsWith('{"prompt"') ? JSON.stringify({ prompt: 'a', completion: 'b' }) : row(0);
  const failure = run(specOf({ [name]: input('bad.jsonl', `${good}\n${line}\n`) }));
  await expect(failure).rejects.toMatchObject({ code: 'invalid_input', param, message: expect.stringMatching(message) as string });
});

test('a tuner that matches nothing, and a device without room, are told before training', async () => {
  await expect(run(specOf({ tuner: { kind: 'lora', target_modules: ['nothing'] } }))).rejects.toMatchObject({ code: 'invalid_input', param: 'tuner.target_modules' });
  const available = jest.spyOn(process, 'availableMemory').mockReturnValue(1000);
  try {
    await expect(run(specOf())).rejects.toMatchObject({ code: 'out_of_device_memory', param: 'max_seq_length' });
  } finally {
    available.mockRestore();
  }
});

test('when the device runs out of memory the step is made again in smaller passes', async () => {
  using opened = await engine.openModel(base, 'f32');
  const { model } = opened;
  const forward = jest.spyOn(model, 'forward').mockImplementationOnce(() => {
    throw new TunefleetError('out_of_device_memory', 'no room');
  });
  try {
    const [outcome, seen] = await run(specOf({ epochs: 1 }));
    expect(outcome).toMatchObject({ type: 'succeeded', result: { steps: 4 } });
    expect(seen.logs).toContain('the device ran out of memory with 2 rows of the longest example per pass; going on with 1');
    expect(JSON.parse(readFileSync(join(seen.checkpoints[0]?.folder.dir ?? '', 'trainer_state.json'), 'utf8'))).toMatchObject({ choices: { microBatchSize: 1 } });
  } finally {
    forward.mockRestore();
  }
});

test('nothing of a job stays on the device', async () => {
  const handles = () => engine.device.memory.liveHandles - engine.device.cachedScalars;
  const before = handles();
  await run(specOf({ epochs: 1 }));
  expect(handles()).toBe(before);
});
