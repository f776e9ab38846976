import { Controller, Get, Headers, Inject, Param, Post, Req, Res } from '@nestjs/common';
import {
  changePrioritySchema,
  checkpointListSchema,
  cloneJobSchema,
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
import { Repeats, type RepeatHints } from '../http/idempotency';
import { Operation } from '../http/operation';
import { boundedList, pageRequest } from '../http/page';
import { ValidBody, ValidQuery } from '../http/zod-pipe';
import { JobCopies } from '../jobs/job-copies';
import type { Submitted } from '../jobs/job-submission';
import { RECORD_STORE } from '../tokens';
import { JobStreams } from './job-streams';
import { JobsService } from './jobs.service';
import { metricPage } from './metric-page';
import { checkpointFilesView, jobEventView, jobSummary } from './views';

@Controller('api/v1/jobs')
export class JobsController {
  constructor(
    @Inject(JobsService) private readonly jobs: JobsService,
    @Inject(JobCopies) private readonly copies: JobCopies,
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

  @Post(':id/pause')
  @Operation('Pause a queued or running job; a running one writes a checkpoint first and is paused once it has', { answer: jobDetailSchema })
  async pause(@Caller() team: TeamRecord, @Param('id') id: string): Promise<JobDetail> {
    return this.jobs.detail(team.id, await this.jobs.pause(team.id, id));
  }

  @Post(':id/resume')
  @Operation('Put a paused job back into the queue, to go on from its last checkpoint', { answer: jobDetailSchema })
  async resume(@Caller() team: TeamRecord, @Param('id') id: string): Promise<JobDetail> {
    return this.jobs.detail(team.id, await this.jobs.resume(team.id, id));
  }

  @Post(':id/priority')
  @Operation('Change the priority of a waiting job', { answer: jobDetailSchema })
  async priority(@Caller() team: TeamRecord, @Param('id') id: string, @ValidBody(changePrioritySchema) { priority }: z.output<typeof changePrioritySchema>): Promise<JobDetail> {
    return this.jobs.detail(team.id, await this.jobs.setPriority(team.id, id, priority));
  }

  @Post(':id/clone')
  @Operation('A new job with the same request, or with some of its fields changed', { answer: jobDetailSchema, status: 201 })
  async clone(
    @Caller() team: TeamRecord,
    @Param('id') id: string,
    @ValidBody(cloneJobSchema, { nulls: true }) changes: z.output<typeof cloneJobSchema>,
    @Repeats() hints: RepeatHints,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<JobDetail> {
    return this.copied(team, await this.copies.clone(team, await this.jobs.get(team.id, id), changes ?? {}, hints), reply);
  }

  @Post(':id/retry')
  @Operation('A new job with the request of one that has failed or was cancelled', { answer: jobDetailSchema, status: 201 })
  async retry(@Caller() team: TeamRecord, @Param('id') id: string, @Repeats() hints: RepeatHints, @Res({ passthrough: true }) reply: FastifyReply): Promise<JobDetail> {
    return this.copied(team, await this.copies.retry(team, await this.jobs.get(team.id, id), hints), reply);
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

  private copied(team: TeamRecord, { job, replayed }: Submitted, reply: FastifyReply): Promise<JobDetail> {
    if (replayed) reply.header('idempotent-replayed', 'true');
    return this.jobs.detail(team.id, job);
  }
}
