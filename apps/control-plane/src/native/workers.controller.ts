import { Controller, Get, Inject, Param, Post } from '@nestjs/common';
import { cordonSchema, drainSchema, workerListSchema, workerSchema, type WorkerView } from '@tunefleet/contracts';
import { STOP_GRACE_MS } from '@tunefleet/domain-jobs';
import { TunefleetError } from '@tunefleet/foundation';
import type { RecordStore, WorkerRecord } from '@tunefleet/ports';
import type { z } from 'zod';
import { Operation } from '../http/operation';
import { ValidBody } from '../http/zod-pipe';
import { RECORD_STORE } from '../tokens';
import { workerView } from './views';

/** Workers serve all teams. */
@Controller('api/v1/workers')
export class WorkersController {
  constructor(@Inject(RECORD_STORE) private readonly records: Pick<RecordStore, 'listWorkers' | 'countLiveAttempts' | 'setWorkerCordoned' | 'drainWorker'>) {}

  @Get()
  @Operation('List workers', { answer: workerListSchema })
  async list() {
    const [workers, running] = await Promise.all([this.records.listWorkers(), this.records.countLiveAttempts()]);
    return { object: 'list' as const, data: workers.map((worker) => workerView(worker, running.get(worker.id) ?? 0)), has_more: false as const };
  }

  @Post(':id/cordon')
  @Operation('Give a worker no new jobs; what it runs goes on', { answer: workerSchema })
  async cordon(@Param('id') id: string, @ValidBody(cordonSchema) body: z.output<typeof cordonSchema>): Promise<WorkerView> {
    return this.view(id, await this.records.setWorkerCordoned(id, true, body?.reason));
  }

  @Post(':id/uncordon')
  @Operation('Give a worker jobs again, also after a drain', { answer: workerSchema })
  async uncordon(@Param('id') id: string): Promise<WorkerView> {
    return this.view(id, await this.records.setWorkerCordoned(id, false));
  }

  @Post(':id/drain')
  @Operation('Empty a worker: let its job end, or write a checkpoint and go on elsewhere; it gets no new ones', { answer: workerSchema })
  async drain(@Param('id') id: string, @ValidBody(drainSchema) { mode, deadline_seconds: seconds }: z.output<typeof drainSchema>): Promise<WorkerView> {
    const deadline = seconds === undefined ? {} : { deadlineMs: seconds * 1_000 };
    return this.view(id, await this.records.drainWorker(id, { mode, ...deadline, graceMs: STOP_GRACE_MS }));
  }

  @Post(':id/undrain')
  @Operation('The same as uncordon', { answer: workerSchema })
  undrain(@Param('id') id: string): Promise<WorkerView> {
    return this.uncordon(id);
  }

  private async view(id: string, worker: WorkerRecord | null): Promise<WorkerView> {
    if (worker === null) throw new TunefleetError('not_found', `no such worker: '${id.slice(0, 100)}'. GET /api/v1/workers lists those there are`, { param: 'id' });
    return workerView(worker, (await this.records.countLiveAttempts()).get(id) ?? 0);
  }
}
