import { Controller, Inject, Post } from '@nestjs/common';
import { RETENTION_KINDS, retentionReportSchema, runRetentionSchema, type RetentionReport } from '@tunefleet/contracts';
import { defaultRetention, retentionRules } from '@tunefleet/domain-jobs';
import type { Clock } from '@tunefleet/foundation';
import type { z } from 'zod';
import { Operation } from '../http/operation';
import { ValidBody } from '../http/zod-pipe';
import { CLOCK, RETENTION } from '../tokens';
import type { Retention } from './retention';

/** A request is answered well before anything in between cuts it off; the rest is asked for again. */
const BUDGET_MS = 20_000;

@Controller('api/v1/retention')
export class RetentionController {
  constructor(
    @Inject(RETENTION) private readonly retention: Pick<Retention, 'run'>,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @Post()
  @Operation('Count, or with `apply` remove, what is old and nobody needs', { answer: retentionReportSchema })
  async run(@ValidBody(runRetentionSchema) { apply, rules }: z.output<typeof runRetentionSchema>): Promise<RetentionReport> {
    const deadlineMs = this.clock.monotonic() + BUDGET_MS;
    const { freed, complete } = await this.retention.run(rules === undefined ? defaultRetention : rulesOf(rules), { apply, isOver: () => this.clock.monotonic() >= deadlineMs });
    const data = freed.map(({ kind, olderThanMs, keep, rows, bytes }) => ({ kind, older_than_seconds: olderThanMs / 1000, keep, rows, bytes }));
    return { object: 'retention.report', applied: apply, complete, data };
  }
}

function rulesOf(rules: NonNullable<z.output<typeof runRetentionSchema>['rules']>) {
  const wanted = RETENTION_KINDS.flatMap((kind) => {
    const rule = rules[kind];
    return rule === undefined ? [] : ([[kind, { olderThanMs: rule.older_than_seconds * 1000, keep: rule.keep }]] as const);
  });
  return retentionRules(new Map(wanted));
}
