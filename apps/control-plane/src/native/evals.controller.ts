import { Controller, Get, Inject, Param, Post, Req, Res } from '@nestjs/common';
import { createEvalSchema, evalJobListSchema, evalJobSchema, listEvalsQuerySchema, type EvalJob } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import type { BlobStore, FileRecord, JobRecord, RecordStore, TeamRecord } from '@tunefleet/ports';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { Caller } from '../http/api-key.guard';
import { Repeats, type RepeatHints } from '../http/idempotency';
import { Operation } from '../http/operation';
import { boundedList, pageRequest } from '../http/page';
import { sendBlob } from '../http/send-blob';
import { ValidBody, ValidQuery } from '../http/zod-pipe';
import { BLOB_STORE, RECORD_STORE } from '../tokens';
import { evalView } from './eval-view';
import { EvalsService } from './evals.service';
import { JobsService } from './jobs.service';

const ITEMS_FILE = 'items.jsonl';

@Controller('api/v1/evals')
export class EvalsController {
  constructor(
    @Inject(EvalsService) private readonly evals: EvalsService,
    @Inject(JobsService) private readonly jobs: JobsService,
    @Inject(RECORD_STORE) private readonly records: Pick<RecordStore, 'listJobs' | 'getFile'>,
    @Inject(BLOB_STORE) private readonly blobs: BlobStore,
  ) {}

  @Post()
  @Operation('Create an eval job', { answer: evalJobSchema, status: 201 })
  async create(
    @Caller() team: TeamRecord,
    @ValidBody(createEvalSchema) body: z.output<typeof createEvalSchema>,
    @Repeats() hints: RepeatHints,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<EvalJob> {
    const { job, replayed } = await this.evals.create(team, body, hints);
    if (replayed) reply.header('idempotent-replayed', 'true');
    return evalView(job);
  }

  @Get()
  @Operation('List eval jobs, newest first', { answer: evalJobListSchema })
  async list(@Caller() team: TeamRecord, @ValidQuery(listEvalsQuerySchema) query: z.output<typeof listEvalsQuerySchema>) {
    const { status, metadata } = query;
    const page = await this.records.listJobs(team.id, {
      ...pageRequest(query),
      kind: 'eval',
      ...(status === undefined ? {} : { status }),
      ...(metadata === undefined ? {} : { metadata }),
    });
    return boundedList(page.items.map(evalView), page.hasMore);
  }

  @Get(':id')
  @Operation('One eval job with its result', { answer: evalJobSchema })
  async get(@Caller() team: TeamRecord, @Param('id') id: string): Promise<EvalJob> {
    return evalView(await this.jobs.get(team.id, id, 'eval'));
  }

  @Post(':id/cancel')
  @Operation('Cancel an eval job for good', { answer: evalJobSchema })
  async cancel(@Caller() team: TeamRecord, @Param('id') id: string): Promise<EvalJob> {
    return evalView(await this.jobs.cancel(team.id, id, 'eval'));
  }

  @Get(':id/items')
  @Operation('The answers row by row, one JSON object a line', { contentType: 'application/x-ndjson' })
  async items(@Caller() team: TeamRecord, @Param('id') id: string, @Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    const file = await this.itemsFile(team, await this.jobs.get(team.id, id, 'eval'));
    await sendBlob(this.blobs, { ...file, contentType: 'application/x-ndjson' }, request, reply);
  }

  private async itemsFile(team: TeamRecord, job: JobRecord): Promise<FileRecord> {
    if (job.status !== 'succeeded') throw new TunefleetError('illegal_transition', `eval job ${job.id} is ${job.status}: its answers are there once it has succeeded`, { reason: 'not_finished' });
    for (const fileId of job.resultFileIds) {
      const file = await this.records.getFile(team.id, fileId);
      if (file?.filename === ITEMS_FILE) return file;
    }
    throw new TunefleetError('not_found', `the answers of eval job ${job.id} have been deleted`, { reason: 'file_not_found' });
  }
}
