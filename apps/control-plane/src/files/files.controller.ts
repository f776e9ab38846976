import { Controller, Delete, Get, Inject, Param, Post, Req, Res } from '@nestjs/common';
import { apiFileSchema, createFileFieldsSchema, fileDeletedSchema, fileListSchema, listFilesQuerySchema, type ApiFile } from '@tunefleet/contracts';
import type { BlobStore, TeamRecord } from '@tunefleet/ports';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import type { ControlPlaneConfig } from '../config/config';
import { Caller } from '../http/api-key.guard';
import { Operation } from '../http/operation';
import { boundedList } from '../http/page';
import { sendBlob } from '../http/send-blob';
import { ValidQuery } from '../http/zod-pipe';
import { BLOB_STORE, CONFIG } from '../tokens';
import { fileView } from './file-view';
import { FilesService } from './files.service';
import { readUpload } from './upload';

@Controller('v1/files')
export class FilesController {
  constructor(
    @Inject(FilesService) private readonly files: FilesService,
    @Inject(BLOB_STORE) private readonly blobs: BlobStore,
    @Inject(CONFIG) private readonly config: ControlPlaneConfig,
  ) {}

  @Post()
  @Operation('Upload a file', { multipart: createFileFieldsSchema, answer: apiFileSchema })
  async create(@Caller() team: TeamRecord, @Req() request: FastifyRequest): Promise<ApiFile> {
    return fileView(await this.files.create(team.id, await readUpload(request, this.blobs, this.config.maxFileBytes)));
  }

  @Get()
  @Operation('List files', { answer: fileListSchema })
  async list(@Caller() team: TeamRecord, @ValidQuery(listFilesQuerySchema) query: z.infer<typeof listFilesQuerySchema>) {
    const { after, purpose, ...rest } = query;
    const page = await this.files.list(team.id, { ...rest, ...(after === undefined ? {} : { after }), ...(purpose === undefined ? {} : { purpose }) });
    return boundedList(page.items.map(fileView), page.hasMore);
  }

  @Get(':id')
  @Operation('One file', { answer: apiFileSchema })
  async get(@Caller() team: TeamRecord, @Param('id') id: string): Promise<ApiFile> {
    return fileView(await this.files.get(team.id, id));
  }

  @Get(':id/content')
  @Operation("A file's bytes", { contentType: 'application/octet-stream' })
  async content(@Caller() team: TeamRecord, @Param('id') id: string, @Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    await sendBlob(this.blobs, await this.files.get(team.id, id), request, reply);
  }

  @Delete(':id')
  @Operation('Delete a file; runs that used it stay on record', { answer: fileDeletedSchema })
  async delete(@Caller() team: TeamRecord, @Param('id') id: string) {
    const file = await this.files.delete(team.id, id);
    return { id: file.id, object: 'file' as const, deleted: true as const };
  }
}
