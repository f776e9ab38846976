import { Controller, Get, Inject, Param, Req, Res } from '@nestjs/common';
import { TunefleetError } from '@tunefleet/foundation';
import type { BlobStore, RecordStore, TeamRecord } from '@tunefleet/ports';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Caller } from '../http/api-key.guard';
import { Operation } from '../http/operation';
import { sendBlob } from '../http/send-blob';
import { BLOB_STORE, RECORD_STORE } from '../tokens';
import { artifactOf } from './artifact-of';

@Controller('api/v1/checkpoints')
export class CheckpointsController {
  constructor(
    @Inject(RECORD_STORE) private readonly records: Pick<RecordStore, 'getCheckpoint' | 'getJob'>,
    @Inject(BLOB_STORE) private readonly blobs: BlobStore,
  ) {}

  @Get(':id/files/:name')
  @Operation('A file of a checkpoint', { contentType: 'application/octet-stream' })
  async file(@Caller() team: TeamRecord, @Param('id') id: string, @Param('name') name: string, @Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    const checkpoint = await this.records.getCheckpoint(id);
    // Only a job of the caller's team makes the checkpoint the caller's.
    if (checkpoint === null || (await this.records.getJob(team.id, checkpoint.jobId)) === null) {
      throw new TunefleetError('not_found', `no such checkpoint: '${id.slice(0, 100)}'. GET /api/v1/jobs/{id}/checkpoints lists those of a job`, { param: 'id' });
    }
    await sendBlob(this.blobs, artifactOf(checkpoint.artifacts, name, `checkpoint ${checkpoint.id}`), request, reply);
  }
}
