import { Controller, Get, Inject, Param, Req, Res } from '@nestjs/common';
import { adapterListSchema, adapterSchema, type AdapterView } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import type { AdapterRecord, BlobStore, RecordStore, TeamRecord } from '@tunefleet/ports';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Caller } from '../http/api-key.guard';
import { Operation } from '../http/operation';
import { sendBlob } from '../http/send-blob';
import { BLOB_STORE, RECORD_STORE } from '../tokens';
import { artifactOf } from './artifact-of';
import { adapterView } from './views';

@Controller('api/v1/adapters')
export class AdaptersController {
  constructor(
    @Inject(RECORD_STORE) private readonly records: Pick<RecordStore, 'listAdapters'>,
    @Inject(BLOB_STORE) private readonly blobs: BlobStore,
  ) {}

  @Get()
  @Operation('List adapters, newest first', { answer: adapterListSchema })
  async list(@Caller() team: TeamRecord) {
    return { object: 'list' as const, data: (await this.records.listAdapters(team.id)).map(adapterView), has_more: false as const };
  }

  @Get(':id')
  @Operation('One adapter', { answer: adapterSchema })
  async get(@Caller() team: TeamRecord, @Param('id') id: string): Promise<AdapterView> {
    return adapterView(await this.require(team, id));
  }

  @Get(':id/files/:name')
  @Operation("A file of an adapter's folder", { contentType: 'application/octet-stream' })
  async file(@Caller() team: TeamRecord, @Param('id') id: string, @Param('name') name: string, @Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    const adapter = await this.require(team, id);
    await sendBlob(this.blobs, artifactOf(adapter.artifacts, name, `adapter ${adapter.id}`), request, reply);
  }

  /** By id, or by the callable name. */
  private async require(team: TeamRecord, id: string): Promise<AdapterRecord> {
    const adapter = (await this.records.listAdapters(team.id)).find((candidate) => candidate.id === id || candidate.name === id);
    if (adapter === undefined) throw new TunefleetError('not_found', `no such adapter: '${id.slice(0, 300)}'. GET /api/v1/adapters lists those there are`, { param: 'id' });
    return adapter;
  }
}
