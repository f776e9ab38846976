import { jobKinds, type ArtifactRef, type FineTuneSpec, type JobKind } from '@tunefleet/contracts';
import { invariant, sha256Hex, TunefleetError, type JsonObject } from '@tunefleet/foundation';
import type { BlobStore, Completion, JobRecord, MetricPointRecord, RecordStore } from '@tunefleet/ports';

export interface CompletionDeps {
  readonly records: Pick<RecordStore, 'listMetrics'>;
  readonly blobs: Pick<BlobStore, 'put' | 'stat'>;
  /** The metric points of a job as the CSV that users download. */
  readonly resultCsv: (points: readonly MetricPointRecord[]) => string;
}

type ResultFile = Completion['resultFiles'][number];

interface Published {
  readonly adapter?: NonNullable<Completion['adapter']>;
  readonly resultFiles: readonly ResultFile[];
  readonly messages: readonly string[];
}

/** What each job kind leaves behind besides its result. */
const publishers: Readonly<Record<JobKind, (job: JobRecord, artifacts: readonly ArtifactRef[], deps: CompletionDeps) => Promise<Published>>> = {
  'fine-tune': publishFineTune,
  eval: publishEval,
};

const METRICS_PAGE = 10_000;
const METRICS_FILE = 'step_metrics.csv';
const EVAL_ITEMS_FILE = 'items.jsonl';

/**
 * Everything the terminal transaction of a successful job writes. Result files are stored before it, under their hash, so that doing this twice does no harm.
 * @throws incompatible_artifact when the result does not fit its kind or an artifact is not stored
 */
export async function buildCompletion(job: JobRecord, result: JsonObject | null, artifacts: readonly ArtifactRef[], deps: CompletionDeps): Promise<Completion> {
  const parsed = jobKinds[job.kind].result.safeParse(result);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new TunefleetError('incompatible_artifact', `the worker's result of a ${job.kind} job is not valid: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`);
  }
  await requireStored(artifacts, deps.blobs);
  const published = await publishers[job.kind](job, artifacts, deps);
  return {
    result: parsed.data as unknown as JsonObject,
    artifacts,
    ...published,
    messages: [...published.messages, 'The job has successfully completed'],
  };
}

/** @throws incompatible_artifact naming the first one that the store does not hold in that size */
export async function requireStored(artifacts: readonly ArtifactRef[], blobs: Pick<BlobStore, 'stat'>): Promise<void> {
  for (const artifact of artifacts) {
    const info = await blobs.stat(artifact.sha256);
    if (info?.bytes !== artifact.bytes) {
      throw new TunefleetError('incompatible_artifact', `artifact ${artifact.name} (${artifact.sha256}, ${artifact.bytes} bytes) was reported but is not stored`);
    }
  }
}

async function publishFineTune(job: JobRecord, _artifacts: readonly ArtifactRef[], deps: CompletionDeps): Promise<Published> {
  invariant(job.workerSpec !== null, `job ${job.id} ran without a worker spec`);
  const name = job.spec['fineTunedModel'];
  invariant(typeof name === 'string', `fine-tune job ${job.id} has no model name in its spec`);
  const spec = job.workerSpec as unknown as FineTuneSpec;
  const csv = Buffer.from(deps.resultCsv(await allMetrics(job.id, deps.records)), 'utf8');
  const stored = await deps.blobs.put(once(csv), { maxBytes: csv.length, expected: { sha256: sha256Hex(csv), bytes: csv.length } });
  return {
    adapter: { name, baseModel: spec.base.id, baseRevision: spec.base.revision, tunerKind: spec.tuner.kind },
    resultFiles: [{ filename: METRICS_FILE, ...stored }],
    messages: [`New fine-tuned model created: ${name}`],
  };
}

function publishEval(_job: JobRecord, artifacts: readonly ArtifactRef[]): Promise<Published> {
  const items = artifacts.filter((artifact) => artifact.name === EVAL_ITEMS_FILE);
  return Promise.resolve({
    resultFiles: items.map((artifact) => ({ filename: artifact.name, bytes: artifact.bytes, sha256: artifact.sha256 })),
    messages: [],
  });
}

/** All points in order. `sinceStep` pages by whole steps, so a full page gives its last, perhaps cut, step back to the next one. */
async function allMetrics(jobId: string, records: CompletionDeps['records']): Promise<MetricPointRecord[]> {
  const points: MetricPointRecord[] = [];
  let sinceStep: number | undefined;
  for (;;) {
    const page = await records.listMetrics(jobId, { limit: METRICS_PAGE, ...(sinceStep === undefined ? {} : { sinceStep }) });
    const lastStep = page.at(-1)?.step;
    if (page.length < METRICS_PAGE || lastStep === undefined) return [...points, ...page];
    const whole = page.filter((point) => point.step < lastStep);
    const kept = whole.length > 0 ? whole : page;
    points.push(...kept);
    sinceStep = kept.at(-1)?.step;
  }
}

async function* once(bytes: Uint8Array): AsyncIterable<Uint8Array> {
  yield await Promise.resolve(bytes);
}
