import type { JsonObject } from '@tunefleet/foundation';
import type { ChaosRecord, JobRow, Reference, Wish } from './record';

/** What the rules see. */
export interface Evidence {
  readonly record: ChaosRecord;
  readonly wishes: readonly Wish[];
  readonly references: readonly Reference[];
}

export interface Verdict {
  readonly rule: string;
  /** How many things the rule looked at: one that saw nothing proves nothing. */
  readonly looked: number;
  /** Each says what is wrong, and where. */
  readonly broken: readonly string[];
}

type Rule = (evidence: Evidence) => Omit<Verdict, 'rule'>;

const TERMINAL: ReadonlySet<string> = new Set(['succeeded', 'failed', 'cancelled']);

/** Nothing is changed by them; every one sees the whole evidence. */
const rules: Readonly<Record<string, Rule>> = {
  'no job is lost: each ends as wanted': asWanted,
  'a job ends once, and for good': endsOnce,
  'an attempt ends once, and for good': attemptsEndOnce,
  'one live lease per job and per worker': oneLiveLease,
  'no lease is taken before it ends, unless its holder let go': leasesHeld,
  'epochs only grow': epochsGrow,
  'metrics: every step once, in the order of epochs': metricsWhole,
  'metrics: bit for bit as undisturbed': metricsEqual,
  'adapters: one per success, byte for byte as undisturbed': adaptersEqual,
  'evals: result and rows as undisturbed': evalsEqual,
  'nothing is published without success': nothingOrphaned,
  'what the record names is stored': blobsStored,
};

export function checkEvidence(evidence: Evidence): Verdict[] {
  return Object.entries(rules).map(([rule, check]) => ({ rule, ...check(evidence) }));
}

function asWanted({ record, wishes }: Evidence): ReturnType<Rule> {
  const broken = wishes.flatMap(({ key, jobId, cancel }) => {
    const rows = record.jobs.filter((job) => job.key === key);
    const [job] = rows;
    if (job === undefined) return jobId === null ? [] : [`${jobId} was promised and is not on record`];
    if (rows.length > 1) return [`${rows.length} jobs came of one request (${key})`];
    if (jobId !== null && job.id !== jobId) return [`${jobId} was promised, ${job.id} is on record`];
    const right = cancel === 'confirmed' ? ['cancelled'] : cancel === 'unsure' ? ['cancelled', 'succeeded'] : ['succeeded'];
    return right.includes(job.status) ? [] : [`${job.id} is ${job.status}, not ${right.join(' or ')}: ${JSON.stringify(job.error ?? job.waitingReason)}`];
  });
  return { looked: wishes.length, broken };
}

function endsOnce({ record }: Evidence): ReturnType<Rule> {
  const ends = new Map<string, number>();
  const broken: string[] = [];
  for (const { jobId, from, to } of record.jobChanges) {
    if (from !== null && TERMINAL.has(from) && from !== to) broken.push(`${jobId} went from ${from} to ${to}`);
    if (TERMINAL.has(to) && from !== to) ends.set(jobId, (ends.get(jobId) ?? 0) + 1);
  }
  for (const [jobId, count] of ends) if (count > 1) broken.push(`${jobId} ended ${count} times`);
  for (const { id, status } of record.jobs) {
    const successes = record.attempts.filter((attempt) => attempt.jobId === id && attempt.outcome === 'succeeded').length;
    if (successes !== (status === 'succeeded' ? 1 : 0)) broken.push(`${id} is ${status} with ${successes} successful attempts`);
  }
  return { looked: record.jobChanges.length, broken };
}

function attemptsEndOnce({ record }: Evidence): ReturnType<Rule> {
  const changed = record.attemptChanges.filter(({ from }) => from === 'finished').map(({ attemptId, outcome }) => `attempt ${attemptId} changed after its end (${outcome})`);
  const open = record.attempts.filter(({ status }) => status !== 'finished').map(({ id, jobId, status }) => `attempt ${id} of ${jobId} is still ${status}`);
  return { looked: record.attempts.length, broken: [...changed, ...open] };
}

/** Replays the record's changes: at no moment may two unfinished attempts share a job or a worker. */
function oneLiveLease({ record }: Evidence): ReturnType<Rule> {
  const live = new Map<string, Set<string>>();
  const broken: string[] = [];
  for (const { attemptId, jobId, workerId, to } of record.attemptChanges) {
    for (const holder of [`job ${jobId}`, `worker ${workerId}`]) {
      const attempts = live.get(holder) ?? new Set();
      live.set(holder, attempts);
      if (to === 'finished') attempts.delete(attemptId);
      else if (attempts.add(attemptId).size > 1) broken.push(`${holder} has ${attempts.size} live attempts: ${[...attempts].join(', ')}`);
    }
  }
  return { looked: record.attemptChanges.length, broken };
}

/** `lost`: nobody spoke for the attempt any more. Then either its lease was over, or its worker had come back in a new life. */
function leasesHeld({ record }: Evidence): ReturnType<Rule> {
  const ends = record.attemptChanges.filter(({ to }) => to === 'finished');
  const broken = ends
    .filter(({ outcome, atMs, leaseEndsMs, workerIsNew }) => outcome === 'lost' && leaseEndsMs > atMs && !workerIsNew)
    .map(({ attemptId, jobId, atMs, leaseEndsMs }) => `attempt ${attemptId} of ${jobId} was taken ${Math.round(leaseEndsMs - atMs)} ms before its lease ended`);
  return { looked: ends.length, broken };
}

function epochsGrow({ record }: Evidence): ReturnType<Rule> {
  const broken: string[] = [];
  const last = new Map<string, number>();
  for (const { jobId, attemptId, epoch, from } of record.attemptChanges) {
    if (from !== null) continue;
    const before = last.get(jobId) ?? 0;
    if (epoch <= before) broken.push(`attempt ${attemptId} of ${jobId} has epoch ${epoch} after ${before}`);
    last.set(jobId, Math.max(before, epoch));
  }
  for (const { jobId, fromEpoch, toEpoch } of record.jobChanges) if (fromEpoch !== null && toEpoch < fromEpoch) broken.push(`the epoch of ${jobId} went from ${fromEpoch} to ${toEpoch}`);
  return { looked: record.attempts.length, broken };
}

function metricsWhole({ record }: Evidence): ReturnType<Rule> {
  const jobs = tuned(record);
  const broken = jobs.flatMap(({ id, totalSteps }) => {
    const losses = record.metrics.filter((point) => point.jobId === id && point.name === 'train_loss');
    const wanted = Array.from({ length: totalSteps ?? 0 }, (_, index) => index + 1);
    const announced = record.announcedSteps.filter((each) => each.jobId === id).map(({ step }) => step);
    return [
      ...differences(`${id}: losses`, wanted, losses.map(({ step }) => step)),
      ...differences(`${id}: announcements`, wanted, announced),
      ...losses.flatMap(({ step, epoch }, index) => ((losses[index - 1]?.epoch ?? 0) > epoch ? [`${id}: step ${step} is of epoch ${epoch}, the one before of ${losses[index - 1]?.epoch}`] : [])),
    ];
  });
  return { looked: jobs.length, broken };
}

function metricsEqual({ record, wishes, references }: Evidence): ReturnType<Rule> {
  const text = (jobId: string): string[] => record.metrics.filter((point) => point.jobId === jobId).map(({ name, step, value }) => `${name} of step ${step} = ${value}`);
  const { looked, broken } = comparedWithReferences(record, wishes, references, 'fine-tune', (job, reference) => differences(`${job.id}: metrics`, text(reference.id), text(job.id)));
  const retold = record.metricChanges.map(({ jobId, name, step, from, to }) => `${jobId}: ${name} of step ${step} was ${from} and was told again as ${to}`);
  return { looked, broken: [...broken, ...retold] };
}

function adaptersEqual({ record, wishes, references }: Evidence): ReturnType<Rule> {
  const files = (jobId: string): string[] => record.adapters.filter((adapter) => adapter.jobId === jobId).flatMap(({ artifacts }) => artifacts.map(({ name, sha256, bytes }) => `${name} ${sha256} ${bytes}`));
  const { looked, broken } = comparedWithReferences(record, wishes, references, 'fine-tune', (job, reference) => differences(`${job.id}: adapter`, files(reference.id), files(job.id)));
  const counted = tuned(record).flatMap(({ id }) => {
    const count = record.adapters.filter((adapter) => adapter.jobId === id).length;
    return count === 1 ? [] : [`${id} has ${count} adapters`];
  });
  return { looked, broken: [...broken, ...counted] };
}

function evalsEqual({ record, wishes, references }: Evidence): ReturnType<Rule> {
  const files = (job: JobRow): string[] => job.resultFileIds.map((id) => record.resultFiles.find((file) => file.id === id)).map((file) => `rows ${file?.sha256} ${file?.bytes}`);
  return comparedWithReferences(record, wishes, references, 'eval', (job, reference) => [
    ...differences(`${job.id}: result`, [scores(reference)], [scores(job)]),
    ...differences(`${job.id}: rows`, files(reference), files(job)),
  ]);
}

function nothingOrphaned({ record }: Evidence): ReturnType<Rule> {
  const succeeded = new Set(record.jobs.filter(({ status }) => status === 'succeeded').map(({ id }) => id));
  const owned = new Set(record.jobs.filter(({ id }) => succeeded.has(id)).flatMap(({ resultFileIds }) => resultFileIds));
  const broken = [
    ...record.adapters.filter(({ jobId }) => !succeeded.has(jobId)).map(({ id, jobId }) => `adapter ${id} is published, its job ${jobId} has not succeeded`),
    ...record.resultFiles.filter(({ id }) => !owned.has(id)).map(({ id }) => `result file ${id} belongs to no job that has succeeded`),
    ...[...owned].filter((id) => !record.resultFiles.some((file) => file.id === id)).map((id) => `result file ${id} is named by a job and not there`),
  ];
  return { looked: record.adapters.length + record.resultFiles.length, broken };
}

function blobsStored({ record }: Evidence): ReturnType<Rule> {
  const broken = record.blobs.filter(({ state }) => state !== 'stored').map(({ sha256, namedBy, state }) => `${sha256}, named by ${namedBy}: ${state}`);
  return { looked: record.blobs.length, broken };
}

function tuned(record: ChaosRecord): JobRow[] {
  return record.jobs.filter(({ kind, status }) => kind === 'fine-tune' && status === 'succeeded');
}

/** Every other job that has succeeded against the undisturbed one of its template. */
function comparedWithReferences(record: ChaosRecord, wishes: readonly Wish[], references: readonly Reference[], kind: string, compare: (job: JobRow, reference: JobRow) => string[]): Omit<Verdict, 'rule'> {
  const pairs = wishes.flatMap(({ key, template }) => {
    const job = record.jobs.find((each) => each.key === key);
    if (job?.kind !== kind || job.status !== 'succeeded' || references.some(({ jobId }) => jobId === job.id)) return [];
    const reference = record.jobs.find(({ id }) => id === references.find((each) => each.template === template)?.jobId);
    return [{ job, reference }];
  });
  return { looked: pairs.length, broken: pairs.flatMap(({ job, reference }) => (reference === undefined ? [`${job.id} has no undisturbed job to be compared with`] : compare(job, reference))) };
}

/** The first place at which two rows of things part, in words; none when they agree. */
function differences<T extends string | number>(what: string, wanted: readonly T[], found: readonly T[]): string[] {
  const at = Array.from({ length: Math.max(wanted.length, found.length) }).findIndex((_, index) => wanted[index] !== found[index]);
  if (at < 0) return [];
  return [`${what} differ at place ${at + 1} of ${wanted.length} (${found.length} found): ${wanted[at] ?? 'the end'} is wanted, ${found[at] ?? 'the end'} is there`];
}

/** Without how long it took and how much memory. */
function scores({ result }: JobRow): string {
  const { metric, candidates, comparison } = (result ?? {}) as JsonObject;
  return JSON.stringify({ metric, candidates, comparison });
}
