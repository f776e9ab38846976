/** Several fine-tune jobs in one engine at once, each held to what it is alone. Everything that comes and goes does so on a message of the engine, so every run of the test is the same. */
import { cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { jest } from '@jest/globals';
import type { ArtifactRef, FineTuneSpec } from '@tunefleet/contracts';
import { createTuner, parseTunerSpec } from '@tunefleet/ml-tuners';
import type { FromEngine } from '../engine-protocol';
import { SessionHarness, type Answer } from './testing/session-harness';

jest.setTimeout(120_000);

/** Of losses: only the order of f32 sums differs. */
const TOLERANCE = 2e-5;

let harness: SessionHarness;
beforeAll(async () => {
  harness = await SessionHarness.open();
});
afterAll(() => harness.close());
beforeEach(() => (harness.onMessage = () => undefined));

const row = (index: number): string =>
  JSON.stringify({ messages: [{ role: 'user', content: `mail ${index} ${'win the ring '.repeat(index % 3)}` }, { role: 'assistant', content: index % 2 === 0 ? 'ham' : 'spam' }] });
const rows = (from: number, to: number): string => Array.from({ length: to - from }, (_, index) => row(from + index)).join('\n');

async function specOf(changes: Partial<FineTuneSpec> = {}): Promise<FineTuneSpec> {
  return {
    base: await harness.base(),
    trainingFile: harness.input('train.jsonl', rows(0, 12)),
    tuner: { kind: 'lora', r: 4, lora_alpha: 8, target_modules: 'all-linear' },
    computeDtype: 'f32',
    seed: 3,
    epochs: 3,
    batchSize: 4,
    microBatchSize: 2,
    maxSequenceLength: 128,
    learningRate: 5e-3,
    schedule: 'cosine',
    warmupRatio: 0,
    weightDecay: 0,
    maxGradNorm: 1,
    checkpointEverySteps: 0,
    validateEverySteps: 0,
    ...changes,
  };
}

type Run = ReturnType<SessionHarness['run']>;

const start = (spec: FineTuneSpec, options: Parameters<SessionHarness['run']>[2] = {}): Run => harness.run('fine-tune', spec, options);

/** Losses of training and validation, in their order. */
const lossesOf = ({ runId }: Run): number[] => harness.of('metrics', runId).map(({ values }) => (values['train_loss'] ?? values['valid_loss']) as number);

const sharesSteps = ({ runId }: Run): boolean => harness.of('log', runId).some(({ message }) => message.startsWith('steps are made together'));

function succeeded(answer: Answer): Extract<Answer, { type: 'succeeded' }> {
  if (answer.type !== 'succeeded') throw new Error(JSON.stringify(answer));
  return answer;
}

function expectNear(got: readonly number[], wanted: readonly number[]): void {
  expect(got).toHaveLength(wanted.length);
  got.forEach((loss, index) => expect(Math.abs(loss - (wanted[index] as number))).toBeLessThan(TOLERANCE));
}

const lone = new Map<string, readonly number[]>();

/** Losses of the same job with nobody beside it. */
async function alone(spec: FineTuneSpec): Promise<readonly number[]> {
  const key = JSON.stringify(spec);
  const known = lone.get(key);
  if (known) return known;
  const run = start(spec);
  succeeded(await run);
  expect(sharesSteps(run)).toBe(false);
  lone.set(key, lossesOf(run));
  return lossesOf(run);
}

/** Starts the run when another one reports a step. */
function whenAt(run: Run, step: number, act: () => void): void {
  const before = harness.onMessage;
  harness.onMessage = (message: FromEngine) => {
    before(message);
    if (message.type === 'metrics' && message.runId === run.runId && message.step === step && 'train_loss' in message.values) act();
  };
}

/** What the spec's runs are when nobody is beside them, then all at once. @returns losses alone, by run, and the runs */
async function startTogether(specs: readonly FineTuneSpec[]): Promise<{ readonly wanted: readonly (readonly number[])[]; readonly runs: readonly Run[] }> {
  const wanted: (readonly number[])[] = [];
  for (const spec of specs) wanted.push(await alone(spec));
  return { wanted, runs: specs.map((spec) => start(spec)) };
}

/** As long as `act` takes there is a run that does nothing but train, so that others share its steps however fast they are prepared and saved. */
async function beside(act: () => Promise<void>): Promise<void> {
  const companion = start(await specOf({ seed: 20, epochs: 50, batchSize: 1, trainingFile: harness.input('long.jsonl', rows(0, 200)) }));
  await new Promise<void>((resolve) => whenAt(companion, 1, resolve));
  await act();
  harness.session.receive({ type: 'stop', runId: companion.runId, checkpoint: false });
  expect((await companion).type).toBe('stopped');
}

test('runs that enter late, leave early, validate and save beside each other have the losses they have alone', async () => {
  const specs = [
    await specOf(),
    await specOf({ seed: 4, epochs: 2, validationFile: harness.input('valid.jsonl', rows(12, 18)), validateEverySteps: 2, checkpointEverySteps: 2 }),
    await specOf({ seed: 5, batchSize: 6, tuner: { kind: 'lora', r: 3, lora_alpha: 6, lora_dropout: 0.1, target_modules: ['q_proj', 'down_proj'] } }),
    await specOf({ seed: 6, epochs: 2, tuner: { kind: 'ia3' } }),
  ];
  const wanted: (readonly number[])[] = [];
  for (const spec of specs) wanted.push(await alone(spec));
  const runs: Run[] = [];
  await beside(async () => {
    runs.push(...specs.slice(0, 3).map((spec) => start(spec)));
    whenAt(runs[0] as Run, 4, () => runs.push(start(specs[3] as FineTuneSpec)));
    for (const run of runs.slice(0, 3)) expect(succeeded(await run).result).toMatchObject({ peakDeviceBytes: 0, predictedDeviceBytes: expect.any(Number) as number });
    succeeded(await (runs[3] as Run));
  });
  runs.forEach((run, index) => expectNear(lossesOf(run), wanted[index] ?? []));
  expect(runs.map(sharesSteps)).toEqual([true, true, true, true]);
  expect(harness.of('checkpoint', (runs[1] as Run).runId).map(({ step }) => step)).toEqual([2, 3, 4, 6]);
  expect(harness.session.busy).toBe(false);
});

test('one that is cancelled, one that is stopped and goes on later, and one that fails leave the others as they are', async () => {
  const broken = await specOf({ seed: 9, startAdapter: await adapterOf(1e25) });
  const { wanted, runs } = await startTogether([await specOf(), await specOf({ seed: 4 }), await specOf({ seed: 5 })]);
  const [whole, cancelled, stopped] = runs as [Run, Run, Run];
  const failed = start(broken);
  whenAt(cancelled, 3, () => harness.session.receive({ type: 'stop', runId: cancelled.runId, checkpoint: false }));
  whenAt(stopped, 5, () => harness.session.receive({ type: 'stop', runId: stopped.runId, checkpoint: true }));
  expect(await failed).toMatchObject({ type: 'failed', failure: { class: 'user', code: 'not_finite' } });
  expect(await cancelled).toEqual({ type: 'stopped', runId: cancelled.runId });
  expect(await stopped).toEqual({ type: 'stopped', runId: stopped.runId });
  succeeded(await whole);
  expectNear(lossesOf(whole), wanted[0] ?? []);
  expect(harness.of('checkpoint', cancelled.runId).map(({ step }) => step)).toEqual([3]);
  expectNear(lossesOf(cancelled), wanted[1]?.slice(0, 3) ?? []);

  let resumed: number[] = [];
  const resumeDir = join(harness.folder, 'resume-together');
  cpSync(harness.of('checkpoint', stopped.runId).at(-1)?.dir ?? '', resumeDir, { recursive: true });
  await beside(async () => {
    const onwards = start(await specOf({ seed: 5 }), { resumeDir });
    succeeded(await onwards);
    expect(sharesSteps(onwards)).toBe(true);
    resumed = lossesOf(onwards);
  });
  expectNear([...lossesOf(stopped), ...resumed], wanted[2] ?? []);
});

test('one that cannot share passes takes turns, and can be stopped while it waits for its own', async () => {
  const virtual = { kind: 'prompt-tuning', num_virtual_tokens: 3 };
  const { wanted, runs } = await startTogether([await specOf(), await specOf({ seed: 4 }), await specOf({ seed: 5, tuner: virtual })]);
  const other = start(await specOf({ seed: 6, tuner: virtual, epochs: 50 }));
  // Its stop comes while the others' step is computed: they report at its end.
  whenAt(runs[1] as Run, 6, () => harness.session.receive({ type: 'stop', runId: other.runId, checkpoint: true }));
  for (const run of runs) succeeded(await run);
  expect(await other).toEqual({ type: 'stopped', runId: other.runId });
  expect(sharesSteps(runs[2] as Run) || sharesSteps(other)).toBe(false);
  runs.slice(0, 2).forEach((run, index) => expectNear(lossesOf(run), wanted[index] ?? []));
  // To the bit: it computes by itself.
  expect(lossesOf(runs[2] as Run)).toEqual(wanted[2]);
});

test('a job of another kind on the same model runs beside them', async () => {
  const { wanted, runs } = await startTogether([await specOf(), await specOf({ seed: 4 })]);
  const evaluated = harness.run('eval', {
    ...{ base: await harness.base(), candidates: [{ model: 'base' }], file: harness.input('valid.jsonl', rows(12, 18)) },
    ...{ metric: { type: 'label_likelihood', labels: ['ham', 'spam'] }, maxSequenceLength: 128, computeDtype: 'f32' },
  });
  expect((await evaluated).type).toBe('succeeded');
  for (const [index, run] of runs.entries()) {
    succeeded(await run);
    expectNear(lossesOf(run), wanted[index] ?? []);
  }
});

test('a job that finds no memory is to blame only where it is alone', async () => {
  const spec = await specOf({ seed: 8 });
  const memory = jest.spyOn(process, 'availableMemory').mockReturnValue(1);
  try {
    expect(await start(spec)).toMatchObject({ type: 'failed', failure: { class: 'resource', code: 'out_of_device_memory' } });
    memory.mockRestore();
    await beside(async () => {
      jest.spyOn(process, 'availableMemory').mockReturnValue(1);
      expect(await start(spec)).toMatchObject({ type: 'failed', failure: { class: 'infrastructure', code: 'no_memory_beside_others', message: expect.stringMatching(/^beside another job in this engine: one example of/) as string } });
    });
  } finally {
    jest.restoreAllMocks();
  }
});

test('an engine that cannot go on says so of every run', async () => {
  const runs = [start(await specOf()), start(await specOf({ seed: 4 }))];
  await new Promise<void>((resolve) => whenAt(runs[0] as Run, 3, resolve));
  harness.session.crash(new Error('nobody knows why'));
  // Here the process lives on, and with it the runs.
  const ends = runs.map((run) => new Promise<void>((resolve) => whenAt(run, 9, resolve)));
  for (const run of runs) expect(await run).toMatchObject({ type: 'failed', failure: { class: 'infrastructure', code: 'engine_crashed' } });
  await Promise.all(ends);
});

/** An adapter all of whose values are `value`. */
async function adapterOf(value: number): Promise<ArtifactRef[]> {
  const base = await harness.base();
  using opened = await harness.engine.openModel(base, 'f32');
  const tuner = createTuner(parseTunerSpec((await specOf()).tuner), opened.model);
  const dir = join(harness.folder, 'adapter');
  mkdirSync(dir);
  await tuner.save(new Float32Array(tuner.parameterCount).fill(value), dir, base);
  return harness.inputFolder(dir);
}
