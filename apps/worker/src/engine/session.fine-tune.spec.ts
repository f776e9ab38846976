/** A fine-tune job through the session, stopped with a checkpoint and resumed, and an eval of its adapter. */
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { jest } from '@jest/globals';
import type { FineTuneSpec } from '@tunefleet/contracts';
import { SessionHarness } from './testing/session-harness';

jest.setTimeout(60_000);

let harness: SessionHarness;
beforeAll(async () => {
  harness = await SessionHarness.open();
});
afterAll(() => harness.close());
beforeEach(() => (harness.onMessage = () => undefined));

const LABELS = ['ham', 'spam'];
/** The answer is always the label that the untrained model finds less likely, as it has one token more. */
const rows = Array.from({ length: 12 }, (_, index) =>
  JSON.stringify({ messages: [{ role: 'user', content: `mail ${index}` }, { role: 'assistant', content: 'ham' }] }),
).join('\n');

async function fineTuneSpec(): Promise<FineTuneSpec> {
  return {
    base: await harness.base(),
    trainingFile: harness.input('train.jsonl', rows),
    tuner: { kind: 'lora', r: 4, lora_alpha: 16, target_modules: 'all-linear' },
    computeDtype: 'f32',
    seed: 3,
    epochs: 5,
    batchSize: 6,
    microBatchSize: 3,
    maxSequenceLength: 64,
    learningRate: 0.01,
    schedule: 'cosine',
    warmupRatio: 0,
    weightDecay: 0,
    maxGradNorm: 1,
    checkpointEverySteps: 0,
    validateEverySteps: 0,
  };
}

test('a run that is stopped and resumed has the losses of one that was not, and its adapter has learned the answer', async () => {
  const spec = await fineTuneSpec();
  const whole = harness.run('fine-tune', spec);
  const answer = await whole;
  if (answer.type !== 'succeeded') throw new Error(JSON.stringify(answer));
  const lossesOf = (runId: string): (number | undefined)[] => harness.of('metrics', runId).map(({ values }) => values['train_loss']);
  expect(lossesOf(whole.runId)).toHaveLength(10);
  expect(answer.result['lossLast']).toBeLessThan(answer.result['lossFirst'] as number);

  harness.onMessage = (message) => {
    if (message.type === 'metrics' && message.step === 3) harness.session.receive({ type: 'stop', runId: message.runId, checkpoint: true });
  };
  const first = harness.run('fine-tune', spec);
  expect(await first).toEqual({ type: 'stopped', runId: first.runId });
  const checkpoint = harness.of('checkpoint', first.runId).at(-1);
  expect(checkpoint?.step).toBe(3);
  // As after a download: another folder, the first run's gone.
  const resumeDir = join(harness.folder, 'resume');
  cpSync(checkpoint?.dir ?? '', resumeDir, { recursive: true });
  harness.onMessage = () => undefined;
  const second = harness.run('fine-tune', spec, { resumeDir });
  expect((await second).type).toBe('succeeded');
  expect([...lossesOf(first.runId), ...lossesOf(second.runId)]).toEqual(lossesOf(whole.runId));

  const evaluated = await harness.run('eval', {
    base: spec.base,
    candidates: [{ model: 'base' }, { model: 'tuned', adapter: harness.inputFolder(answer.dir) }],
    file: spec.trainingFile,
    metric: { type: 'label_likelihood', labels: LABELS },
    maxSequenceLength: 64,
    computeDtype: 'f32',
  });
  expect(evaluated).toMatchObject({ type: 'succeeded', result: { candidates: [{ n: 12, correct: 0 }, { n: 12, correct: 12 }] } });
});

test('an unknown tuner field fails the job and names it', async () => {
  const answer = await harness.run('fine-tune', { ...(await fineTuneSpec()), tuner: { kind: 'lora', rank: 4 } });
  expect(answer).toMatchObject({ type: 'failed', failure: { class: 'user', param: 'tuner.rank' } });
});
