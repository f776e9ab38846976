import { Controller, Get, Inject } from '@nestjs/common';
import { statusSchema, type StatusView } from '@tunefleet/contracts';
import type { JobQueue, Outbox, RecordStore, WorkerRecord } from '@tunefleet/ports';
import { Operation } from '../http/operation';
import type { ControlLoops } from '../loops';
import { JOB_QUEUE, LOOPS, OUTBOX, RECORD_STORE } from '../tokens';
import { VERSION } from '../version';

@Controller('api/v1/status')
export class StatusController {
  constructor(
    @Inject(RECORD_STORE) private readonly records: Pick<RecordStore, 'countJobs' | 'listWorkers'>,
    @Inject(OUTBOX) private readonly outbox: Pick<Outbox, 'lagMs'>,
    @Inject(JOB_QUEUE) private readonly queue: Pick<JobQueue, 'backend'>,
    @Inject(LOOPS) private readonly loops: Pick<ControlLoops, 'status'>,
  ) {}

  @Get()
  @Operation('What the service is doing', { answer: statusSchema })
  async get(): Promise<StatusView> {
    const [jobs, workers, lagMs] = await Promise.all([this.records.countJobs(), this.records.listWorkers(), this.outbox.lagMs()]);
    const { loops, repairs } = this.loops.status();
    const count = (test: (worker: WorkerRecord) => boolean): number => workers.filter(test).length;
    return {
      object: 'status',
      version: VERSION,
      uptime_seconds: Math.round(process.uptime()),
      queue: { backend: this.queue.backend, outbox_lag_ms: lagMs },
      jobs: { ...jobs },
      workers: {
        online: count((worker) => worker.status === 'online'),
        suspect: count((worker) => worker.status === 'suspect'),
        offline: count((worker) => worker.status === 'offline'),
        cordoned: count((worker) => worker.cordoned),
      },
      loops: loops.map(({ name, runs, errors, consecutiveErrors, lastDurationMs }) => ({
        name,
        runs,
        errors,
        consecutive_errors: consecutiveErrors,
        last_duration_ms: lastDurationMs,
      })),
      repairs: { ...repairs },
    };
  }
}
