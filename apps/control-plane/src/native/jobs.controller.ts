import { Controller, Get, Headers, Inject, Param, Post, Req, Res } from '@nestjs/common';
import {
  checkpointListSchema,
  jobDetailSchema,
  jobEventListSchema,
  jobListSchema,
  listEventsQuerySchema,
  listJobsQuerySchema,
  listMetricsQuerySchema,
  listNativeCheckpointsQuerySchema,
  metricListSchema,
  type JobDetail,
} from '@tunefleet/contracts';
import type { RecordStore, TeamRecord } from '@tunefleet/ports';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { Caller } from '../http/api-key.guard';
import { Operation } from '../http/operation';
import { boundedList, pageRequest } from '../http/page';
import { ValidQuery } from '../http/zod-pipe';
import { RECORD_STORE } from '../tokens';
import { JobStreams } from './job-streams';
import { JobsService } from './jobs.service';
import { metricPage } from './metric-page';
import { checkpointFilesView, jobEventView, jobSummary } from './views';

@Controller('api/v1/jobs')
export class JobsController {
  constructor(
    @Inject(JobsService) private readonly jobs: JobsService,
    @Inject(JobStreams) private readonly streams: JobStreams,
    @Inject(RECORD_STORE) private readonly records: Pick<RecordStore, 'listJobs' | 'listEvents' | 'listCheckpoints' | 'listMetrics'>,
  ) {}

  @Get()
  @Operation('List jobs of every kind, newest first', { answer: jobListSchema })
  async list(@Caller() team: TeamRecord, @ValidQuery(listJobsQuerySchema) query: z.output<typeof listJobsQuerySchema>) {
    const { kind, status, metadata } = query;
    const page = await this.records.listJobs(team.id, {
      ...pageRequest(query),
      ...(kind === undefined ? {} : { kind }),
      ...(status === undefined ? {} : { status }),
      ...(metadata === undefined ? {} : { metadata }),
    });
    return boundedList(page.items.map(jobSummary), page.hasMore);
  }

  @Get(':id')
  @Operation('All that is on record about a job', { answer: jobDetailSchema })
  async get(@Caller() team: TeamRecord, @Param('id') id: string): Promise<JobDetail> {
    return this.jobs.detail(team.id, await this.jobs.get(team.id, id));
  }

  @Post(':id/cancel')
  @Operation('Cancel a job for good', { answer: jobDetailSchema })
  async cancel(@Caller() team: TeamRecord, @Param('id') id: string): Promise<JobDetail> {
    return this.jobs.detail(team.id, await this.jobs.cancel(team.id, id));
  }

  @Get(':id/events')
  @Operation("A job's events, newest first", { answer: jobEventListSchema })
  async events(@Caller() team: TeamRecord, @Param('id') id: string, @ValidQuery(listEventsQuerySchema) query: z.output<typeof listEventsQuerySchema>) {
    const job = await this.jobs.get(team.id, id);
    const page = await this.records.listEvents(job.id, pageRequest(query));
    return boundedList(page.items.map(jobEventView), page.hasMore);
  }

  @Get(':id/events/stream')
  @Operation('What happens to a job, as it happens: server-sent events', { contentType: 'text/event-stream' })
  async stream(
    @Caller() team: TeamRecord,
    @Param('id') id: string,
    @Headers('last-event-id') lastEventId: string | undefined,
    @Req() request: FastifyRequest,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    const job = await this.jobs.get(team.id, id);
    await this.streams.serve(team.id, job.id, lastEventId, request, reply);
  }

  @Get(':id/metrics')
  @Operation("A job's metric points, by step", { answer: metricListSchema })
  async metrics(@Caller() team: TeamRecord, @Param('id') id: string, @ValidQuery(listMetricsQuerySchema) query: z.output<typeof listMetricsQuerySchema>) {
    const job = await this.jobs.get(team.id, id);
    return metricPage(this.records, job.id, query);
  }

  @Get(':id/checkpoints')
  @Operation("A job's checkpoints with their files, newest first", { answer: checkpointListSchema })
  async checkpoints(@Caller() team: TeamRecord, @Param('id') id: string, @ValidQuery(listNativeCheckpointsQuerySchema) query: z.output<typeof listNativeCheckpointsQuerySchema>) {
    const job = await this.jobs.get(team.id, id);
    const page = await this.records.listCheckpoints(job.id, pageRequest(query));
    return boundedList(page.items.map(checkpointFilesView), page.hasMore);
  }
}
