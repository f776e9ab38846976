import { Controller, Get, Inject, Param, Post, Res } from '@nestjs/common';
import {
  createFineTuningJobSchema,
  fineTuningCheckpointListSchema,
  fineTuningEventListSchema,
  fineTuningJobListSchema,
  fineTuningJobSchema,
  listCheckpointsQuerySchema,
  listEventsQuerySchema,
  listFineTuningJobsQuerySchema,
  type FineTuningJob,
} from '@tunefleet/contracts';
import type { JobRecord, RecordStore, TeamRecord } from '@tunefleet/ports';
import type { FastifyReply } from 'fastify';
import type { z } from 'zod';
import { Caller } from '../http/api-key.guard';
import { Repeats, type RepeatHints } from '../http/idempotency';
import { Operation } from '../http/operation';
import { apiList, boundedList, pageRequest } from '../http/page';
import { ValidBody, ValidQuery } from '../http/zod-pipe';
import { RECORD_STORE } from '../tokens';
import type { CreateJobBody } from './create-job';
import { FineTuningService } from './fine-tuning.service';
import { checkpointView, eventView, fineTuningJobView, requestOf } from './job-view';

@Controller('v1/fine_tuning/jobs')
export class FineTuningController {
  constructor(
    @Inject(FineTuningService) private readonly jobs: FineTuningService,
    @Inject(RECORD_STORE) private readonly records: Pick<RecordStore, 'listEvents' | 'listCheckpoints' | 'getAdapterByJob'>,
  ) {}

  @Post()
  @Operation('Create a fine-tuning job', { answer: fineTuningJobSchema })
  async create(
    @Caller() team: TeamRecord,
    @ValidBody(createFineTuningJobSchema) body: CreateJobBody,
    @Repeats() hints: RepeatHints,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<FineTuningJob> {
    const { job, replayed } = await this.jobs.create(team, body, hints);
    if (replayed) reply.header('idempotent-replayed', 'true');
    return this.view(team, job);
  }

  @Get()
  @Operation('List fine-tuning jobs, newest first', { answer: fineTuningJobListSchema })
  async list(@Caller() team: TeamRecord, @ValidQuery(listFineTuningJobsQuerySchema) query: z.output<typeof listFineTuningJobsQuerySchema>) {
    const page = await this.jobs.list(team.id, query);
    return { object: 'list' as const, data: await Promise.all(page.items.map((job) => this.view(team, job))), has_more: page.hasMore };
  }

  @Get(':id')
  @Operation('One fine-tuning job', { answer: fineTuningJobSchema })
  async get(@Caller() team: TeamRecord, @Param('id') id: string): Promise<FineTuningJob> {
    return this.view(team, await this.jobs.get(team.id, id));
  }

  @Post(':id/cancel')
  @Operation('Cancel a fine-tuning job for good', { answer: fineTuningJobSchema })
  async cancel(@Caller() team: TeamRecord, @Param('id') id: string): Promise<FineTuningJob> {
    return this.view(team, await this.jobs.cancel(team.id, id));
  }

  @Post(':id/pause')
  @Operation('Pause a fine-tuning job: a running one writes a checkpoint first and is paused once it has', { answer: fineTuningJobSchema })
  async pause(@Caller() team: TeamRecord, @Param('id') id: string): Promise<FineTuningJob> {
    return this.view(team, await this.jobs.pause(team.id, id));
  }

  @Post(':id/resume')
  @Operation('Put a paused fine-tuning job back into the queue, to go on from its last checkpoint', { answer: fineTuningJobSchema })
  async resume(@Caller() team: TeamRecord, @Param('id') id: string): Promise<FineTuningJob> {
    return this.view(team, await this.jobs.resume(team.id, id));
  }

  @Get(':id/events')
  @Operation("A job's events, newest first", { answer: fineTuningEventListSchema })
  async events(@Caller() team: TeamRecord, @Param('id') id: string, @ValidQuery(listEventsQuerySchema) query: z.output<typeof listEventsQuerySchema>) {
    const job = await this.jobs.get(team.id, id);
    return apiList(await this.records.listEvents(job.id, pageRequest(query)), eventView);
  }

  @Get(':id/checkpoints')
  @Operation("A job's checkpoints, newest first", { answer: fineTuningCheckpointListSchema })
  async checkpoints(@Caller() team: TeamRecord, @Param('id') id: string, @ValidQuery(listCheckpointsQuerySchema) query: z.output<typeof listCheckpointsQuerySchema>) {
    const job = await this.jobs.get(team.id, id);
    const { fineTunedModel } = requestOf(job);
    const page = await this.records.listCheckpoints(job.id, pageRequest(query));
    return boundedList(
      page.items.map((checkpoint) => checkpointView(checkpoint, fineTunedModel)),
      page.hasMore,
    );
  }

  private async view(team: TeamRecord, job: JobRecord): Promise<FineTuningJob> {
    const adapter = job.status === 'succeeded' ? await this.records.getAdapterByJob(team.id, job.id) : null;
    return fineTuningJobView(job, team, adapter?.id ?? null);
  }
}
