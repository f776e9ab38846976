import { Controller, Get, Inject, Param, Post } from '@nestjs/common';
import { workerListSchema, workerSchema, type WorkerView } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import type { RecordStore } from '@tunefleet/ports';
import { Operation } from '../http/operation';
import { RECORD_STORE } from '../tokens';
import { workerView } from './views';

/** Workers serve all teams. */
@Controller('api/v1/workers')
export class WorkersController {
  constructor(@Inject(RECORD_STORE) private readonly records: Pick<RecordStore, 'listWorkers' | 'setWorkerCordoned'>) {}

  @Get()
  @Operation('List workers', { answer: workerListSchema })
  async list() {
    return { object: 'list' as const, data: (await this.records.listWorkers()).map(workerView), has_more: false as const };
  }

  @Post(':id/cordon')
  @Operation('Give a worker no new jobs; what it runs goes on', { answer: workerSchema })
  cordon(@Param('id') id: string): Promise<WorkerView> {
    return this.setCordoned(id, true);
  }

  @Post(':id/uncordon')
  @Operation('Give a worker jobs again', { answer: workerSchema })
  uncordon(@Param('id') id: string): Promise<WorkerView> {
    return this.setCordoned(id, false);
  }

  private async setCordoned(id: string, cordoned: boolean): Promise<WorkerView> {
    const worker = await this.records.setWorkerCordoned(id, cordoned);
    if (worker === null) throw new TunefleetError('not_found', `no such worker: '${id.slice(0, 100)}'. GET /api/v1/workers lists those there are`, { param: 'id' });
    return workerView(worker);
  }
}
