import { checkEvidence, type Evidence } from './rules';
import type { AttemptChange, ChaosRecord, JobRow } from './record';

/**
 * A record in which all is well: an undisturbed fine-tune and eval, a fine-tune that lost its first attempt and was resumed, one whose worker came back,
 * an eval, a cancelled job. Then one thing is made wrong at a time, and the rule that answers for it must say so.
 */
const STEPS = 4;
const HASH = (letter: string): string => letter.repeat(64);

function sound(): Mutable<Evidence> {
  const job = (id: string, kind: string, status: string): JobRow => ({
    ...{ id, key: `key-${id}`, kind, status, epoch: 2, totalSteps: STEPS, result: kind === 'eval' ? { metric: 'exact', candidates: [{ accuracy: 0.5 }], comparison: null, seconds: id.length } : {} },
    ...{ error: null, waitingReason: null, resultFileIds: status === 'succeeded' ? [`file-${id}`] : [] },
  });
  const jobs = [job('tune-ref', 'fine-tune', 'succeeded'), job('eval-ref', 'eval', 'succeeded'), job('tune', 'fine-tune', 'succeeded'), job('eval', 'eval', 'succeeded'), job('gone', 'fine-tune', 'cancelled')];
  const attempt = (jobId: string, epoch: number, outcome: string, workerId: string): ChaosRecord['attempts'][number] => ({ id: `${jobId}-${epoch}`, jobId, epoch, workerId, status: 'finished', outcome, resumed: epoch > 1 });
  const attempts = [attempt('tune-ref', 1, 'succeeded', 'w1'), attempt('eval-ref', 1, 'succeeded', 'w2'), attempt('tune', 1, 'lost', 'w1'), attempt('tune', 2, 'succeeded', 'w2'), attempt('eval', 1, 'lost', 'w1'), attempt('eval', 2, 'succeeded', 'w1'), attempt('gone', 1, 'stopped', 'w1')];
  let atMs = 1_000;
  const attemptChanges = attempts.flatMap(({ id, jobId, workerId, epoch, outcome }): AttemptChange[] => {
    const base = { attemptId: id, jobId, workerId, epoch, workerIsNew: false };
    const leaseEndsMs = atMs + 100;
    const endsMs = (atMs += outcome === 'lost' && jobId === 'tune' ? 150 : 50);
    return [
      { ...base, from: null, to: 'assigned', outcome: null, atMs: endsMs - 50, leaseEndsMs },
      { ...base, from: 'assigned', to: 'running', outcome: null, atMs: endsMs - 40, leaseEndsMs },
      { ...base, from: 'running', to: 'finished', outcome, atMs: endsMs, leaseEndsMs, workerIsNew: outcome === 'lost' && jobId === 'eval' },
    ];
  });
  const jobChanges = jobs.flatMap(({ id, status }) => [
    { jobId: id, from: null, to: 'queued', fromEpoch: null, toEpoch: 0 },
    { jobId: id, from: 'queued', to: 'running', fromEpoch: 0, toEpoch: 1 },
    { jobId: id, from: 'running', to: status, fromEpoch: 1, toEpoch: 2 },
  ]);
  const steps = Array.from({ length: STEPS }, (_, index) => index + 1);
  const tunes = ['tune-ref', 'tune'];
  const evidence: Evidence = {
    record: {
      ...{ jobs, attempts, jobChanges, attemptChanges, metricChanges: [] },
      metrics: tunes.flatMap((jobId) => ['grad_norm', 'train_loss'].flatMap((name) => steps.map((step) => ({ jobId, name, step, value: 1 / (step + name.length), epoch: jobId === 'tune' && step > 2 ? 2 : 1 })))),
      announcedSteps: tunes.flatMap((jobId) => steps.map((step) => ({ jobId, step }))),
      adapters: tunes.map((jobId) => ({ id: `adapter-${jobId}`, jobId, artifacts: [{ name: 'adapter_model.safetensors', sha256: HASH('a'), bytes: 7 }] })),
      resultFiles: jobs.filter(({ status }) => status === 'succeeded').map(({ id, kind }) => ({ id: `file-${id}`, sha256: HASH(kind === 'eval' ? 'e' : id === 'tune' ? 'c' : 'd'), bytes: 9 })),
      blobs: [{ sha256: HASH('a'), namedBy: 'adapter adapter-tune', state: 'stored' }],
    },
    wishes: jobs.map(({ id, key, kind }) => ({ key: key ?? '', template: kind, jobId: id, cancel: id === 'gone' ? 'confirmed' : 'none' })),
    references: [
      { template: 'fine-tune', jobId: 'tune-ref' },
      { template: 'eval', jobId: 'eval-ref' },
    ],
  };
  return evidence as Mutable<Evidence>;
}

test('a sound record breaks no rule, and every rule has something to look at', () => {
  const verdicts = checkEvidence(sound());
  expect(verdicts.filter(({ broken }) => broken.length > 0)).toEqual([]);
  expect(verdicts.filter(({ looked }) => looked === 0)).toEqual([]);
});

type Doctored = readonly [what: string, rule: RegExp, says: RegExp, doctor: (evidence: Mutable<Evidence>) => void];

const doctored: readonly Doctored[] = [
  ['a job that still waits', /no job is lost/, /tune is queued, not succeeded/, ({ record }) => (jobOf(record, 'tune').status = 'queued')],
  ['a job that failed', /no job is lost/, /tune is failed/, ({ record }) => (jobOf(record, 'tune').status = 'failed')],
  ['a job that is not on record', /no job is lost/, /eval was promised and is not on record/, ({ record }) => (record.jobs = record.jobs.filter(({ id }) => id !== 'eval'))],
  ['two jobs of one request', /no job is lost/, /2 jobs came of one request/, ({ record }) => (jobOf(record, 'tune').key = 'key-gone')],
  ['a job that answers to another id', /no job is lost/, /other was promised, tune is on record/, ({ wishes }) => (wishes[2]!.jobId = 'other')],
  ['a cancelled job that succeeded', /no job is lost/, /gone is succeeded, not cancelled/, ({ record }) => (jobOf(record, 'gone').status = 'succeeded')],
  ['a job cancelled by nobody', /no job is lost/, /tune is cancelled, not succeeded/, ({ record }) => (jobOf(record, 'tune').status = 'cancelled')],
  ['a terminal state that is left', /ends once, and for good/, /tune went from succeeded to queued/, ({ record }) => record.jobChanges.push({ jobId: 'tune', from: 'succeeded', to: 'queued', fromEpoch: 2, toEpoch: 3 })],
  ['a second terminal state', /ends once, and for good/, /tune ended 2 times/, ({ record }) => record.jobChanges.push({ jobId: 'tune', from: 'running', to: 'failed', fromEpoch: 2, toEpoch: 2 })],
  ['two attempts that succeeded', /ends once, and for good/, /tune is succeeded with 2 successful attempts/, ({ record }) => (attemptOf(record, 'tune-1').outcome = 'succeeded')],
  ['an attempt that changes after its end', /attempt ends once/, /tune-1 changed after its end/, ({ record }) => record.attemptChanges.push({ ...record.attemptChanges[8]!, from: 'finished', outcome: 'succeeded' })],
  ['an attempt that never ended', /attempt ends once/, /tune-1 of tune is still running/, ({ record }) => (attemptOf(record, 'tune-1').status = 'running')],
  ['two live attempts of a job', /one live lease/, /job tune has 2 live attempts: tune-1, tune-2/, ({ record }) => (record.attemptChanges = record.attemptChanges.filter(({ attemptId, to }) => attemptId !== 'tune-1' || to !== 'finished'))],
  ['two live attempts on a worker', /one live lease/, /worker w1 has 2 live attempts: eval-2, gone-1/, ({ record }) => (record.attemptChanges = record.attemptChanges.filter(({ attemptId, to }) => attemptId !== 'eval-2' || to !== 'finished'))],
  ['a lease taken too early', /no lease is taken/, /tune-1 of tune was taken 60 ms before/, ({ record }) => (record.attemptChanges[8]!.leaseEndsMs = record.attemptChanges[8]!.atMs + 60)],
  ['an epoch that is used twice', /epochs only grow/, /tune-2 of tune has epoch 1 after 1/, ({ record }) => (record.attemptChanges.find(({ attemptId }) => attemptId === 'tune-2')!.epoch = 1)],
  ['an epoch that goes back', /epochs only grow/, /epoch of tune went from 3 to 2/, ({ record }) => record.jobChanges.push({ jobId: 'tune', from: 'queued', to: 'queued', fromEpoch: 3, toEpoch: 2 })],
  ['a step without a loss', /every step once/, /tune: losses differ at place 3 of 4 \(3 found\): 3 is wanted, 4 is there/, ({ record }) => (record.metrics = record.metrics.filter(({ jobId, name, step }) => jobId !== 'tune' || name !== 'train_loss' || step !== 3))],
  ['a step too many', /every step once/, /tune: losses differ at place 5/, ({ record }) => record.metrics.push({ jobId: 'tune', name: 'train_loss', step: 5, value: 1, epoch: 2 })],
  ['a step that was announced twice', /every step once/, /tune: announcements differ at place 5/, ({ record }) => record.announcedSteps.push({ jobId: 'tune', step: 4 })],
  ['a point of a stale attempt', /every step once/, /tune: step 4 is of epoch 1, the one before of 2/, ({ record }) => (lossOf(record, 'tune', 4).epoch = 1)],
  ['a loss that differs in its last bit', /bit for bit/, /tune: metrics differ at place 7 of 8 .*train_loss of step 3/, ({ record }) => (lossOf(record, 'tune', 3).value += Number.EPSILON / 8)],
  ['a loss that was told otherwise before', /bit for bit/, /train_loss of step 3 was 1 and was told again as 2/, ({ record }) => record.metricChanges.push({ jobId: 'tune', name: 'train_loss', step: 3, from: 1, to: 2 })],
  ['an adapter of other bytes', /adapters: one/, /tune: adapter differ at place 1/, ({ record }) => (record.adapters[1]!.artifacts = [{ name: 'adapter_model.safetensors', sha256: HASH('b'), bytes: 7 }])],
  ['a success without an adapter', /adapters: one/, /tune has 0 adapters/, ({ record }) => (record.adapters = record.adapters.slice(0, 1))],
  ['a success with two adapters', /adapters: one/, /tune has 2 adapters/, ({ record }) => record.adapters.push({ ...record.adapters[1]!, id: 'second' })],
  ['another score', /evals: result/, /eval: result differ/, ({ record }) => (jobOf(record, 'eval').result = { metric: 'exact', candidates: [{ accuracy: 0.75 }], comparison: null })],
  ['other rows of an eval', /evals: result/, /eval: rows differ/, ({ record }) => (record.resultFiles.find(({ id }) => id === 'file-eval')!.sha256 = HASH('f'))],
  ['a published adapter of a cancelled job', /nothing is published/, /adapter ghost is published, its job gone has not succeeded/, ({ record }) => record.adapters.push({ id: 'ghost', jobId: 'gone', artifacts: [] })],
  ['a result file of nobody', /nothing is published/, /result file stray belongs to no job/, ({ record }) => record.resultFiles.push({ id: 'stray', sha256: HASH('a'), bytes: 1 })],
  ['a result file that is gone', /nothing is published/, /file-tune is named by a job and not there/, ({ record }) => (record.resultFiles = record.resultFiles.filter(({ id }) => id !== 'file-tune'))],
  ['a missing blob', /what the record names/, /named by adapter adapter-tune: missing/, ({ record }) => (record.blobs[0]!.state = 'missing')],
  ['a template nobody ran undisturbed', /bit for bit/, /tune has no undisturbed job/, (evidence) => (evidence.references = [])],
];

test.each(doctored)('%s', (_what, rule, says, doctor) => {
  const evidence = sound();
  doctor(evidence);
  const broken = checkEvidence(evidence).filter((verdict) => verdict.broken.length > 0);
  const found = broken.find((verdict) => rule.test(verdict.rule));
  expect(found?.broken.join('\n')).toMatch(says);
});

test('every rule is shown to fail', () => {
  const untested = checkEvidence(sound()).filter(({ rule }) => !doctored.some(([, pattern]) => pattern.test(rule)));
  expect(untested).toEqual([]);
});

type Mutable<T> = T extends readonly (infer Item)[] ? Mutable<Item>[] : T extends object ? { -readonly [Key in keyof T]: Mutable<T[Key]> } : T;

function jobOf(record: Mutable<ChaosRecord>, id: string): Mutable<JobRow> {
  return record.jobs.find((job) => job.id === id)!;
}

function attemptOf(record: Mutable<ChaosRecord>, id: string): Mutable<ChaosRecord['attempts'][number]> {
  return record.attempts.find((attempt) => attempt.id === id)!;
}

function lossOf(record: Mutable<ChaosRecord>, jobId: string, step: number): Mutable<ChaosRecord['metrics'][number]> {
  return record.metrics.find((point) => point.jobId === jobId && point.name === 'train_loss' && point.step === step)!;
}
