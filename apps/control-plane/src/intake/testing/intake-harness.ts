import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openBlobsFs } from '@tunefleet/blobs-fs';
import type { ArtifactRef, EvalRequest, FineTuneRequest } from '@tunefleet/contracts';
import { newId, silentLogger, systemClock, type JsonObject } from '@tunefleet/foundation';
import { ModelResolver } from '@tunefleet/ml-models/specs';
import { parseTunerSpec } from '@tunefleet/ml-tuners/specs';
import type { BlobStore, JobRecord, TeamRecord } from '@tunefleet/ports';
import { migrateDatabase, openStore, type Store } from '@tunefleet/store-prisma';
import { writeTinyModel } from '@tunefleet/testing';
import type { IntakeDeps } from '../intake-deps';
import { takeIn } from '../take-in';

const FILE_BYTES_MAX = 16 * 1024 * 1024;
const GIB = 1024 ** 3;

/** Intake on a real database, a real blob store and a model folder, without queue: tests say when a job is looked at. */
export class IntakeHarness {
  private constructor(
    private readonly dir: string,
    readonly store: Store,
    readonly blobs: BlobStore,
    readonly team: TeamRecord,
    readonly model: string,
    readonly deps: IntakeDeps,
  ) {}

  static async open(databaseUrl: string): Promise<IntakeHarness> {
    await migrateDatabase(databaseUrl, silentLogger);
    const dir = await mkdtemp(join(tmpdir(), 'tunefleet-intake-'));
    const store = openStore({ databaseUrl, logger: silentLogger });
    const blobs = await openBlobsFs(join(dir, 'blobs'));
    const team = await store.records.ensureTeam('team');
    const model = await writeTinyModel(join(dir, 'models', 'tiny'));
    const resolver = resolverIn(dir, 'http://127.0.0.1:1');
    const deps = { records: store.records, blobs, resolver, clock: systemClock, logger: silentLogger, signal: new AbortController().signal };
    return new IntakeHarness(dir, store, blobs, team, model, deps);
  }

  async close(): Promise<void> {
    await this.store.close();
    await rm(this.dir, { recursive: true, force: true });
  }

  /** Looks for models at this hub. */
  withHub(endpoint: string): IntakeDeps {
    return { ...this.deps, resolver: resolverIn(this.dir, endpoint) };
  }

  /** A model folder that claims to be something else: its weights are not looked at. */
  async addModel(name: string, claims: object): Promise<string> {
    const folder = await writeTinyModel(join(this.dir, 'models', name));
    const file = join(folder, 'config.json');
    await writeFile(file, JSON.stringify({ ...(JSON.parse(await readFile(file, 'utf8')) as object), ...claims }));
    return folder;
  }

  async upload(content: string | Uint8Array): Promise<string> {
    const bytes = typeof content === 'string' ? Buffer.from(content) : content;
    const blob = await this.blobs.put(chunksOf(bytes), { maxBytes: FILE_BYTES_MAX });
    const { id } = await this.store.records.createFile({ teamId: this.team.id, filename: 'rows.jsonl', purpose: 'fine-tune', bytes: blob.bytes, sha256: blob.sha256, expiresAt: null });
    return id;
  }

  /** Puts a job on record as the API does. */
  async fineTune(fields: Partial<FineTuneRequest> & Pick<FineTuneRequest, 'trainingFile'>): Promise<string> {
    const id = newId('fineTuningJob');
    const request: FineTuneRequest = {
      model: this.model,
      fineTunedModel: `ft:${this.model}:team::${id.slice(-8)}`,
      validationFile: null,
      suffix: null,
      seed: 1,
      hyperparameters: {},
      maxSequenceLength: null,
      computeDtype: 'auto',
      requestHash: id,
      ...fields,
      tuner: parseTunerSpec(fields.tuner ?? { kind: 'lora' }),
    };
    return this.create(id, 'fine-tune', request);
  }

  async evaluate(fields: Partial<EvalRequest> & Pick<EvalRequest, 'file'>): Promise<string> {
    const id = newId('evalJob');
    const request: EvalRequest = {
      model: this.model,
      compareTo: [],
      metric: { type: 'label_likelihood', labels: ['ham', 'spam'], normalise: 'none' },
      limit: null,
      samples: 0,
      maxSequenceLength: null,
      computeDtype: 'auto',
      requestHash: id,
      ...fields,
    };
    return this.create(id, 'eval', request);
  }

  /** The job after intake has looked at it. */
  async takenIn(jobId: string, deps: IntakeDeps = this.deps): Promise<JobRecord> {
    await takeIn(jobId, deps);
    return this.job(jobId);
  }

  async job(jobId: string): Promise<JobRecord> {
    const job = await this.store.records.getJobForIntake(jobId);
    if (job === null) throw new Error(`no job ${jobId}`);
    return job;
  }

  /** Oldest first. */
  async messages(jobId: string): Promise<string[]> {
    const { items } = await this.store.records.listEvents(jobId, { limit: 100 });
    return items.map(({ message }) => message).reverse();
  }

  /** A worker of that size, online and free. */
  async addWorker(memoryBytesTotal = 8 * GIB): Promise<{ id: string; bootId: string; sessionId: string }> {
    const identity = { id: newId('worker'), bootId: 'boot', sessionId: newId('worker') };
    await this.store.fleet.helloWorker({
      ...identity,
      name: identity.id.slice(-6),
      version: '1',
      device: { kind: 'cpu', name: 'cpu', backend: 'tensorflow', backendVersion: '1', memoryBytesTotal, memoryBytesFree: memoryBytesTotal, bf16: false, threads: 2 },
      labels: {},
      jobKinds: ['fine-tune', 'eval'],
      modelsOnDisk: [],
      modelInMemory: null,
      slots: 1,
      replicaId: 'replica',
    });
    await this.store.fleet.setCredit(identity.id, identity.sessionId, { jobs: 1, modelsOnDisk: [], modelInMemory: null });
    return identity;
  }

  /** Runs an admitted fine-tune job to its end as a worker would. @returns the tuned model's name */
  async finish(jobId: string, artifacts: readonly ArtifactRef[]): Promise<string> {
    const job = await this.job(jobId);
    const worker = await this.addWorker();
    const placement = { jobId, jobEpoch: job.epoch, workerId: worker.id, workerBootId: worker.bootId, workerSessionId: worker.sessionId, workerSlots: 1, resumeCheckpointId: null, besideJobIds: [] };
    const attempt = await this.store.fleet.place(placement, 60_000);
    if (attempt === null) throw new Error(`job ${jobId} could not be placed`);
    const key = { jobId, attemptId: attempt.id, epoch: attempt.epoch };
    await this.store.fleet.acknowledge(key);
    const { base } = job.workerSpec as unknown as { base: { id: string; revision: string } };
    const name = String(job.spec['fineTunedModel']);
    const adapter = { name, baseModel: base.id, baseRevision: base.revision, tunerKind: 'lora' };
    await this.store.fleet.complete(key, { result: {}, artifacts, adapter, resultFiles: [], messages: [] });
    return name;
  }

  private async create(id: string, kind: 'fine-tune' | 'eval', request: FineTuneRequest | EvalRequest): Promise<string> {
    await this.store.records.createJob({
      id,
      teamId: this.team.id,
      kind,
      spec: request as unknown as JsonObject,
      baseModel: request.model,
      metadata: null,
      priority: 0,
      queue: kind === 'eval' ? 'eval' : 'tune',
    });
    return id;
  }
}

function resolverIn(dir: string, hubEndpoint: string): ModelResolver {
  return new ModelResolver({ cacheDirectory: join(dir, 'cache'), hubEndpoint, order: ['hub'], localRoots: [join(dir, 'models')], mirror: { python: 'none' }, hubContactTimeoutMs: 2_000 });
}

async function* chunksOf(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield await Promise.resolve(bytes);
}
