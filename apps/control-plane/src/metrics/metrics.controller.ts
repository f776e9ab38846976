import { Controller, Get, Inject, Res } from '@nestjs/common';
import type { FastifyReply } from 'fastify';
import { Operation } from '../http/operation';
import type { ControlLoops } from '../loops';
import { LOOPS, METRICS } from '../tokens';
import type { ServiceMetrics } from './service-metrics';

@Controller()
export class MetricsController {
  constructor(
    @Inject(METRICS) private readonly metrics: ServiceMetrics,
    @Inject(LOOPS) private readonly loops: Pick<ControlLoops, 'status'>,
  ) {}

  @Get('metrics')
  @Operation('Metrics of this replica and of the record, for Prometheus', { contentType: 'text/plain' })
  async get(@Res({ passthrough: true }) reply: FastifyReply): Promise<string> {
    void reply.header('content-type', this.metrics.contentType);
    return this.metrics.text(this.loops);
  }
}
