import { Module, type DynamicModule, type Provider, type Type } from '@nestjs/common';
import { APP_FILTER, APP_GUARD } from '@nestjs/core';
import type { JobRecord, TeamRecord } from '@tunefleet/ports';
import { FilesController } from './files/files.controller';
import { FilesService } from './files/files.service';
import { FineTuningController } from './fine-tuning/fine-tuning.controller';
import { FineTuningService } from './fine-tuning/fine-tuning.service';
import { HealthController } from './health/health.controller';
import { ApiKeyGuard } from './http/api-key.guard';
import { ErrorFilter } from './http/error.filter';
import type { Intake } from './intake';
import { JobCopies } from './jobs/job-copies';
import { JobSubmission } from './jobs/job-submission';
import { ModelLookup } from './jobs/model-lookup';
import { RequestFiles } from './jobs/request-files';
import type { ControlLoops } from './loops';
import { MetricsController } from './metrics/metrics.controller';
import type { ServiceMetrics } from './metrics/service-metrics';
import { ModelsController } from './models/models.controller';
import { ModelsService } from './models/models.service';
import { AdaptersController } from './native/adapters.controller';
import { CheckpointsController } from './native/checkpoints.controller';
import { EvalsController } from './native/evals.controller';
import { EvalsService } from './native/evals.service';
import { JobStreams } from './native/job-streams';
import { JobsController } from './native/jobs.controller';
import { JobsService } from './native/jobs.service';
import { StatusController } from './native/status.controller';
import { TeamsController } from './native/teams.controller';
import { UsageController } from './native/usage.controller';
import { WorkerAccessController } from './native/worker-access.controller';
import { WorkersController } from './native/workers.controller';
import { RetentionController } from './retention/retention.controller';
import type { Retention } from './retention/retention';
import { BLOB_STORE, CLOCK, CONFIG, FLEET_ACCESS, FLEET_STORE, JOB_QUEUE, LOGGER, LOOPS, METRICS, OUTBOX, RECORD_STORE, RETENTION, SUBMITTED, TEAM, type Runtime } from './tokens';

export const controllers: readonly Type[] = [
  FilesController,
  FineTuningController,
  ModelsController,
  EvalsController,
  JobsController,
  AdaptersController,
  CheckpointsController,
  TeamsController,
  UsageController,
  WorkerAccessController,
  WorkersController,
  StatusController,
  RetentionController,
  MetricsController,
  HealthController,
];

const services: readonly Provider[] = [FilesService, ModelsService, FineTuningService, JobSubmission, ModelLookup, RequestFiles, EvalsService, JobsService, JobStreams, JobCopies];

export interface AppContext {
  readonly runtime: Runtime;
  readonly team: TeamRecord;
  readonly intake: Pick<Intake, 'offer'>;
  readonly loops: Pick<ControlLoops, 'status' | 'wakeRelay'>;
  readonly metrics: ServiceMetrics;
  readonly retention: Pick<Retention, 'run'>;
}

/** The HTTP side, on what `startControlPlane` has opened. Every parameter names its token: bundles carry no types. */
@Module({})
export class AppModule {
  static on({ runtime, team, intake, loops, metrics, retention }: AppContext): DynamicModule {
    const opened: readonly Provider[] = [
      { provide: CONFIG, useValue: runtime.config },
      { provide: LOGGER, useValue: runtime.logger },
      { provide: CLOCK, useValue: runtime.clock },
      { provide: RECORD_STORE, useValue: runtime.records },
      { provide: FLEET_STORE, useValue: runtime.fleet },
      { provide: FLEET_ACCESS, useValue: runtime.access },
      { provide: OUTBOX, useValue: runtime.outbox },
      { provide: JOB_QUEUE, useValue: runtime.queue },
      { provide: BLOB_STORE, useValue: runtime.blobs },
      { provide: TEAM, useValue: team },
      { provide: LOOPS, useValue: loops },
      { provide: METRICS, useValue: metrics },
      { provide: RETENTION, useValue: retention },
      { provide: SUBMITTED, useValue: (job: JobRecord) => void (intake.offer(job) || loops.wakeRelay()) },
    ];
    return {
      module: AppModule,
      controllers: [...controllers],
      providers: [...opened, ...services, { provide: APP_GUARD, useClass: ApiKeyGuard }, { provide: APP_FILTER, useClass: ErrorFilter }],
    };
  }
}
