/** Who computes with whom, when: runs on a tiny random Llama whose device has as much memory as a test says. Equality with lone runs is the engine session's spec. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jest } from '@jest/globals';
import { TunefleetError } from '@tunefleet/foundation';
import { PackedDataset } from '@tunefleet/ml-data';
import { loadCausalLm, type CausalLm, type TokenBatch } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { startState, Trainer, type StepResult } from '@tunefleet/ml-training';
import { createTuner, parseTunerSpec } from '@tunefleet/ml-tuners';
import { writeTinyModel } from '@tunefleet/testing';
import { StepExchange, type SeatOptions } from './step-exchange';
import { yieldToEventLoop } from './stop-request';

jest.setTimeout(60_000);

const COLUMNS = 32;

let folder: string;
let model: CausalLm;
/** Tokens of every pass. */
let passes: number[];
/** What a pass may have. */
let room: number;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tunefleet-exchange-'));
  const base = await writeTinyModel(join(folder, 'model'));
  model = await loadCausalLm(await openDevice({ backend: 'tensorflow' }), { folder: base, config: JSON.parse(await readFile(join(base, 'config.json'), 'utf8')) as unknown, computeDtype: 'f32' });
  const forward = model.forward.bind(model);
  model.forward = (batch: TokenBatch, options) => {
    passes.push(batch.rows * batch.columns);
    if (batch.rows * batch.columns > room) throw new TunefleetError('out_of_device_memory', 'no room');
    return forward(batch, options);
  };
});
afterAll(async () => {
  model[Symbol.dispose]();
  await rm(folder, { recursive: true, force: true });
});
beforeEach(() => {
  passes = [];
  room = Number.POSITIVE_INFINITY;
});

/** One row of 32 tokens per step. */
function trainer(seed: number): Trainer {
  const examples = 8;
  const ids = Int32Array.from({ length: examples * COLUMNS }, (_, index) => 40 + (index % 7) + (seed % 3));
  const dataset = new PackedDataset(`seed ${seed}`, { lengths: new Int32Array(examples).fill(COLUMNS), ids, learned: new Uint8Array(ids.length).fill(1) });
  const tuner = createTuner(parseTunerSpec({ kind: 'lora', r: 2, target_modules: 'all-linear' }), model);
  const settings = { seed, epochs: 2, batchSize: 1, learningRate: 1e-3, schedule: 'constant', warmupRatio: 0, weightDecay: 0, maxGradNorm: 1 } as const;
  return new Trainer({ model, tuner, dataset, settings, batching: { microBatchSize: 1, recomputeBlocks: false }, state: startState(tuner.initialValues(seed, { model, tokenise: () => new Int32Array() })) });
}

class TestRun {
  readonly trainer: Trainer;
  readonly said: string[] = [];
  readonly results: (StepResult | null)[] = [];
  wantsStop = false;
  asked = 0;

  constructor(
    private readonly exchange: StepExchange,
    seed: number,
    private readonly options: Partial<SeatOptions> = {},
  ) {
    this.trainer = trainer(seed);
  }

  /** Takes so many steps, one after the other. @param between what it does besides, after each */
  async train(steps: number, between: (step: number) => Promise<void> | void = () => undefined): Promise<void> {
    using seat = this.exchange.enter({
      ...{ shares: 'blocks', bytes: { own: 0, pass: () => 0 } },
      ...{ onShared: (others) => this.said.push(`with ${others}`), onNotice: (message) => this.said.push(message) },
      ...this.options,
    });
    for (let step = 1; step <= steps; step++) {
      const result = await seat.step(this.trainer, async () => {
        this.asked++;
        await yieldToEventLoop();
        return this.wantsStop;
      });
      this.results.push(result);
      if (result === null) return;
      await between(step);
    }
  }
}

const runsOf = (count: number, options: Partial<SeatOptions> = {}): TestRun[] => {
  const exchange = new StepExchange(model.device);
  return Array.from({ length: count }, (_, index) => new TestRun(exchange, index + 1, options));
};
const trainAll = (runs: readonly TestRun[], steps: number): Promise<unknown> => Promise.all(runs.map((run) => run.train(steps)));

test('one run alone computes what its trainer does, to the bit', async () => {
  const [run] = runsOf(1) as [TestRun];
  const wanted = trainer(1);
  await run.train(3);
  for (let step = 0; step < 3; step++) await wanted.trainStep();
  expect(run.trainer.state).toEqual(wanted.state);
  expect([run.said, run.asked]).toEqual([[], 3]);
});

test('the first to come computes alone, from then on all share passes; nobody waits for one that does something else', async () => {
  const runs = runsOf(3);
  const [busy] = runs as [TestRun];
  let others = 0;
  await Promise.all([
    busy.train(3, async (step) => {
      // The others go on meanwhile, until they are done.
      while (step === 2 && others < 2) await yieldToEventLoop();
    }),
    ...runs.slice(1).map((run) => run.train(4).then(() => others++)),
  ]);
  expect(passes).toEqual([1, 3, 2, 2, 2, 1].map((rows) => rows * COLUMNS));
  expect(runs.map(({ results }) => results.map((result) => result?.step))).toEqual([[1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4]]);
  expect(runs.map(({ said }) => said)).toEqual([['with 2'], ['with 2'], ['with 2']]);
});

test('passes are as large as memory allows: foretold, and halved when it was too much', async () => {
  const short = runsOf(4, { bytes: { own: 0, pass: (tokens) => (tokens > 2 * COLUMNS ? Number.MAX_VALUE : 0) } });
  await trainAll(short, 2);
  expect(passes).toEqual([1, 2, 2, 2, 1].map((rows) => rows * COLUMNS));

  passes = [];
  room = 2 * COLUMNS;
  const surprised = runsOf(4);
  await trainAll(surprised, 3);
  expect(Math.max(...passes.slice(-4))).toBe(2 * COLUMNS);
  expect(surprised.map(({ trainer: { state } }) => state.step)).toEqual([3, 3, 3, 3]);
  expect(surprised[0]?.said).toContainEqual(expect.stringContaining('ran out of memory in a shared pass'));
});

test('where not even two fit, each computes alone', async () => {
  const runs = runsOf(3, { bytes: { own: Number.MAX_VALUE, pass: () => 0 } });
  await trainAll(runs, 2);
  expect(passes).toEqual(new Array(6).fill(COLUMNS));
  room = COLUMNS - 1;
  const lost = runsOf(2);
  await expect(trainAll(lost, 1)).rejects.toMatchObject({ code: 'out_of_device_memory' });
});

test('a failure that nobody foresaw is not shared: each goes on alone', async () => {
  const runs = runsOf(2);
  const [first, second] = runs as [TestRun, TestRun];
  Object.defineProperty(second.trainer.run, 'planStep', {
    value: () => {
      throw new Error('its own fault');
    },
  });
  const [healthy, harmed] = await Promise.allSettled(runs.map((run) => run.train(2)));
  expect(harmed).toMatchObject({ status: 'rejected', reason: { message: 'its own fault' } });
  expect(healthy?.status).toBe('fulfilled');
  expect(first.said).toEqual(['a step with other runs failed (its own fault); each goes on alone']);
});

test('whoever waits for a step of others is asked whenever they are, and need not wait for its end', async () => {
  const [computing, waiting] = runsOf(2) as [TestRun, TestRun];
  waiting.wantsStop = true;
  const ends: string[] = [];
  await Promise.all([computing.train(1).then(() => ends.push('computing')), waiting.train(1).then(() => ends.push('waiting'))]);
  expect(ends).toEqual(['waiting', 'computing']);
  expect([waiting.results, waiting.asked, passes.length]).toEqual([[null], 1, 1]);
});
