import { Readable } from 'node:stream';
import type { Placement, Plan, Snapshot } from '@tunefleet/domain-scheduling';
import { newId, sha256Hex, silentLogger, TunefleetError, type JsonObject } from '@tunefleet/foundation';
import { startEmbeddedPostgres, type EmbeddedPostgres } from '@tunefleet/postgres-embedded';
import type { BlobStore, FleetAccess, FleetStore, JobQueue, MetricPointRecord, Outbox, RecordStore } from '@tunefleet/ports';
import { migrateDatabase, openStore } from '@tunefleet/store-prisma';

export interface TestRecord {
  readonly fleet: FleetStore;
  readonly access: FleetAccess;
  readonly teamId: string;
  readonly records: RecordStore;
  readonly blobs: BlobStore;
  readonly outbox: Outbox;
  readonly queue: JobQueue;
  /** Creates a job that intake has let through. */
  submit(workerSpec: JsonObject, afterJobIds?: readonly string[]): Promise<string>;
  cancel(jobId: string): Promise<void>;
  losses(jobId: string): Promise<readonly MetricPointRecord[]>;
  close(): Promise<void>;
}

/** A PostgreSQL server for one test file. */
export async function startTestPostgres(dataDir: string): Promise<EmbeddedPostgres> {
  const postgres = await startEmbeddedPostgres({ dataDir, logger: silentLogger, settings: { fsync: 'off' } });
  await migrateDatabase(postgres.url);
  return postgres;
}

/** The real record, with a team of its own, so that tests do not see each other's jobs in lists. */
export async function openTestRecord(databaseUrl: string): Promise<TestRecord> {
  const { records, fleet, access, outbox, close } = openStore({ databaseUrl, logger: silentLogger });
  const team = await records.ensureTeam(newId('team').slice(-12));
  return {
    fleet,
    access,
    teamId: team.id,
    records,
    outbox,
    blobs: memoryBlobs(),
    queue: silentQueue,
    submit: async (workerSpec, afterJobIds = []) => {
      const id = newId('fineTuningJob');
      await records.createJob({
        id,
        teamId: team.id,
        kind: 'fine-tune',
        spec: { fineTunedModel: `ft:${id}` },
        baseModel: 'base@r1',
        metadata: null,
        priority: 0,
        afterJobIds,
        queue: 'tune',
      });
      await records.admitJob(id, {
        spec: { fineTunedModel: `ft:${id}` },
        workerSpec,
        totalSteps: null,
        memoryBytesEstimate: 1,
        trainingDatasetId: null,
        validationDatasetId: null,
      });
      return id;
    },
    cancel: async (jobId) => {
      await records.cancelJob(team.id, jobId);
    },
    losses: (jobId) => records.listMetrics(jobId, { name: 'loss', limit: 10_000 }),
    close,
  };
}

/** Places jobs on free workers in order: what is tested here is everything after the plan. */
export function firstFit(snapshot: Snapshot): Plan {
  const free = snapshot.workers.filter((worker) => worker.online && !worker.cordoned && !worker.busy && worker.credit > 0);
  const placements: Placement[] = [];
  for (const job of snapshot.jobs) {
    if ((job.notBeforeMs ?? 0) > snapshot.nowMs) continue;
    const worker = free.shift();
    if (worker === undefined) break;
    placements.push({
      jobId: job.id,
      jobEpoch: job.epoch,
      workerId: worker.id,
      workerBootId: worker.bootId,
      workerSessionId: worker.sessionId,
      workerSlots: worker.slots,
      resumeCheckpointId: job.resumeCheckpointId,
      besideJobIds: [],
    });
  }
  return { placements, preemptions: [], waiting: new Map(), lookAgainAtMs: null };
}

/** Jobs are admitted by the test, so nobody consumes what the relay hands over. */
const silentQueue: JobQueue = {
  backend: 'postgres',
  add: () => Promise.resolve(),
  consume: () => Promise.resolve(),
  counts: () => Promise.resolve({ waiting: 0, active: 0, failed: 0 }),
  ping: () => Promise.resolve(),
  close: () => Promise.resolve(),
};

function memoryBlobs(): BlobStore {
  const blobs = new Map<string, Buffer>();
  return {
    put: async (source, { maxBytes, expected }) => {
      const parts: Uint8Array[] = [];
      for await (const part of source) parts.push(part);
      const bytes = Buffer.concat(parts);
      const info = { sha256: sha256Hex(bytes), bytes: bytes.length };
      if (info.bytes > maxBytes || (expected?.sha256 ?? info.sha256) !== info.sha256) throw new TunefleetError('invalid_input', 'the bytes are not those announced');
      blobs.set(info.sha256, bytes);
      return info;
    },
    open: (sha256, range) => {
      const bytes = blobs.get(sha256);
      if (bytes === undefined) throw new TunefleetError('not_found', `no blob ${sha256}`);
      return Promise.resolve(Readable.from([bytes.subarray(range?.offset ?? 0)]));
    },
    stat: (sha256) => {
      const bytes = blobs.get(sha256);
      return Promise.resolve(bytes === undefined ? null : { sha256, bytes: bytes.length });
    },
    delete: (sha256) => {
      blobs.delete(sha256);
      return Promise.resolve();
    },
    ping: () => Promise.resolve(),
  };
}
