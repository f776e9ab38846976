import { join } from 'node:path';
import { openBlobsFs } from '@tunefleet/blobs-fs';
import { defaultCordonRule } from '@tunefleet/domain-jobs';
import { plan } from '@tunefleet/domain-scheduling';
import { systemClock, type Logger } from '@tunefleet/foundation';
import { ModelResolver } from '@tunefleet/ml-models/specs';
import { openQueue } from '@tunefleet/queue-bullmq';
import { migrateDatabase, openStore } from '@tunefleet/store-prisma';
import type { ControlPlaneConfig } from '../config/config';
import { AttemptEndings, FleetServer, leaseTimes } from '../fleet';
import { startIntake } from '../intake';
import { ControlLoops, repairTimes } from '../loops';
import { ServiceMetrics } from '../metrics/service-metrics';
import { resultCsv } from '../results/result-csv';
import { DailyRetention } from '../retention/daily-retention';
import { Retention } from '../retention/retention';
import type { Runtime } from '../tokens';
import { readTls } from './read-tls';
import { startHttp } from './start-http';
import { Shutdown } from './shutdown';

export interface ControlPlane {
  /** `http://host:port` */
  readonly httpUrl: string;
  /** `host:port`; with `grpcs://` in front when it speaks TLS. */
  readonly grpcAddress: string;
  /** Ends what runs, in order: requests, loops, worker sessions, queue, database. A second call waits for the same end. */
  stop(): Promise<void>;
}

/** How long each part may take to stop; together below the 15 s that the supervisor allows. */
const STOP_LIMIT_MS = { http: 4_000, intake: 500, loops: 2_000, retention: 500, fleet: 4_000, queue: 2_000, store: 1_500 };

/** Opens everything one replica needs and serves. What was opened is closed again when a later part fails. */
export async function startControlPlane(config: ControlPlaneConfig, logger: Logger): Promise<ControlPlane> {
  const shutdown = new Shutdown(logger);
  try {
    return await openAll(config, logger, shutdown);
  } catch (error) {
    await shutdown.run();
    throw error;
  }
}

async function openAll(config: ControlPlaneConfig, logger: Logger, shutdown: Shutdown): Promise<ControlPlane> {
  const tls = await readTls(config.grpcTls);
  await migrateDatabase(config.databaseUrl, logger);
  const store = openStore({ databaseUrl: config.databaseUrl, logger });
  shutdown.add('store', STOP_LIMIT_MS.store, () => store.close());
  const blobs = await openBlobsFs(join(config.dataDir, 'blobs'));
  const queue = await openQueue({ redisUrl: config.redisUrl, postgresUrl: config.databaseUrl, logger });
  shutdown.add('queue', STOP_LIMIT_MS.queue, () => queue.close());
  const { records, fleet, access, outbox } = store;
  const runtime: Runtime = { config, logger, clock: systemClock, records, fleet, access, outbox, queue, blobs };
  const team = await records.ensureTeam(config.team);

  const endings = new AttemptEndings({ fleet, records, blobs, resultCsv, logger, cordonRule: { ...defaultCordonRule, failures: config.cordonFailures } });
  const fleetServer = new FleetServer(
    { host: config.grpcHost, port: config.grpcPort, sharedToken: config.sharedToken, plaintextAllowed: config.grpcPlaintext, settings: { ...leaseTimes(config.leaseMs), maxUnpublishedBytes: config.workerUploadBytes }, ...(tls === null ? {} : { tls }) },
    { store: fleet, access, blobs, endings, clock: systemClock, logger },
  );
  shutdown.add('fleet', STOP_LIMIT_MS.fleet, () => fleetServer.stop());
  const grpcPort = await fleetServer.start();

  const { leaseMs } = config;
  const metrics = new ServiceMetrics({ records, outbox, queue, logger });
  const loops = new ControlLoops({ store: fleet, records, outbox, queue, endings, plan, leaseMs, settings: repairTimes(leaseMs), clock: systemClock, logger, onRun: metrics.loopRan });
  shutdown.add('loops', STOP_LIMIT_MS.loops, () => loops.stop());
  const retention = new Retention({ store: store.retention, blobs, clock: systemClock, logger });
  const daily = new DailyRetention({ retention, store: store.retention, rules: config.retention, logger, onRun: metrics.loopRan });
  shutdown.add('retention', STOP_LIMIT_MS.retention, () => daily.stop());
  const resolver = new ModelResolver({ ...config.models, logger });
  const intake = await startIntake({ records, queue, blobs, resolver, logger });
  shutdown.add('intake', STOP_LIMIT_MS.intake, () => intake.stop());
  await loops.start();
  daily.start();

  const http = await startHttp({ runtime, team, intake, loops, metrics, retention }, () => shutdown.isRunning);
  shutdown.add('http', STOP_LIMIT_MS.http, () => http.close());
  const grpcAddress = `${tls === null ? '' : 'grpcs://'}${config.grpcHost}:${grpcPort}`;
  logger.info({ httpUrl: http.url, grpcAddress }, 'control plane ready');
  return { httpUrl: http.url, grpcAddress, stop: () => shutdown.run() };
}
