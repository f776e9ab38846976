import type { EvalItem } from '@tunefleet/contracts';
import { buildReport, reportSchema, type ReportInput } from './report';
import { renderSummary } from './summary';

const BASE = 'base/model';
const TUNED = 'ft:base/model:team:spam:abc';

const item = (row: number, base: [boolean, string?], tuned: [boolean, string?]): EvalItem => ({
  row,
  reference: 'spam',
  outputs: [
    { model: BASE, prediction: 'ham', correct: base[0], ...(base[1] === undefined ? {} : { sample: base[1] }) },
    { model: TUNED, prediction: 'spam', correct: tuned[0], ...(tuned[1] === undefined ? {} : { sample: tuned[1] }) },
  ],
});

const input: ReportInput = {
  baseModel: BASE,
  tunedModel: TUNED,
  dataset: { name: 'mails', train: 400, test: 300 },
  jobId: 'ftjob-1',
  evalId: 'evaljob-1',
  adapterDir: '/data/adapter',
  training: {
    steps: 50,
    trainedTokens: 60_000,
    lossTokens: 800,
    lossFirst: 2.5,
    lossLast: 0.125,
    validLoss: null,
    tokensPerSecond: 1234.5678,
    trainSeconds: 48.6,
    peakRssBytes: 1024 ** 3,
    peakDeviceBytes: 0,
    computeDtype: 'f32',
    trainableParameters: 2_442_240,
  },
  evaluation: {
    metric: 'label_likelihood',
    candidates: [
      { model: BASE, n: 300, correct: 150, accuracy: 0.5, interval: [0.44, 0.56] },
      { model: TUNED, n: 300, correct: 285, accuracy: 0.95, interval: [0.92, 0.97] },
    ],
    comparison: { onlyFirstCorrect: 3, onlyLastCorrect: 138, pValue: 1e-37 },
    seconds: 61.2,
    peakRssBytes: 1024 ** 3,
  },
  items: [item(1, [true, 'Yes'], [true, 'spam']), item(2, [false, 'Sure!'], [true, ' spam\n']), item(3, [false], [true])],
  phases: { start: 4.004, train: 50.25, eval: 62 },
};

test('the report has every documented key, with the numbers of the two jobs', () => {
  const report = buildReport(input);
  expect(reportSchema.parse(report)).toEqual(report);
  expect(report).toMatchObject({
    base_model: BASE,
    dataset: { name: 'mails', train: 400, test: 300 },
    job_id: 'ftjob-1',
    adapter_dir: '/data/adapter',
    train: { steps: 50, tokens: 60_000, tokens_per_s: 1234.6, loss_first: 2.5, loss_last: 0.125, peak_rss_mb: 1024, seconds: 48.6 },
    eval: { metric: 'label_likelihood', n: 300, base: 0.5, tuned: 0.95 },
    seconds_total: 116.25,
  });
});

test('the example is a sampled mail that tuning put right', () => {
  expect(buildReport(input).example).toEqual({ row: 2, reference: 'spam', before: 'Sure!', after: 'spam' });
  expect(buildReport({ ...input, items: [item(1, [true, 'Yes'], [true, 'spam'])] }).example?.row).toBe(1);
  expect(buildReport({ ...input, items: [item(3, [false], [true])] }).example).toBeNull();
});

test('an eval without one of the models is refused', () => {
  expect(() => buildReport({ ...input, baseModel: 'other' })).toThrow('no entry for other');
});

test('the summary shows both models, the phases, the example, and three commands', () => {
  const text = renderSummary(buildReport(input), 'You have won\n a prize', false);
  expect(text).toMatch(/base {3}base\/model +50\.0 % +44\.0 – 56\.0 +300/);
  expect(text).toMatch(/tuned {2}ft:base\/model:team:spam:abc +95\.0 % +92\.0 – 97\.0 +300/);
  expect(text).toContain('2.5000 at the first step, 0.1250 at the last (50 steps)');
  expect(text).toMatch(/total +1m 56s/);
  expect(text).toContain('“You have won a prize”');
  expect(text.split('Next:\n')[1]?.split('\n')).toHaveLength(3);
  expect(renderSummary(buildReport(input), null, true).split('Next:\n')[1]?.split('\n')).toHaveLength(3);
});
