import { Controller, Get, Inject } from '@nestjs/common';
import { usageQuerySchema, usageReportSchema, type UsageReport } from '@tunefleet/contracts';
import type { Clock } from '@tunefleet/foundation';
import type { RecordStore } from '@tunefleet/ports';
import type { z } from 'zod';
import { Operation } from '../http/operation';
import { ValidQuery } from '../http/zod-pipe';
import { CLOCK, RECORD_STORE } from '../tokens';

const DAY_MS = 86_400_000;
const DAYS_DEFAULT = 30;

@Controller('api/v1/usage')
export class UsageController {
  constructor(
    @Inject(RECORD_STORE) private readonly records: Pick<RecordStore, 'usageByDay'>,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @Get()
  @Operation('GPU time by day and team, and how much of it was lost', { answer: usageReportSchema })
  async report(@ValidQuery(usageQuerySchema) query: z.output<typeof usageQuerySchema>): Promise<UsageReport> {
    const { from, to } = spanOf(query, this.clock.now());
    const rows = await this.records.usageByDay({ from, to, ...(query.team === undefined ? {} : { team: query.team }) });
    const data = rows.map(({ team, day, gpuSeconds, wastedGpuSeconds, attempts }) => ({
      object: 'usage.day' as const,
      team,
      day,
      gpu_seconds: gpuSeconds,
      wasted_gpu_seconds: wastedGpuSeconds,
      attempts,
    }));
    return { object: 'list', data, has_more: false, from, to };
  }
}

/** 30 days where one end or both are open. */
function spanOf({ from, to }: { readonly from?: string | undefined; readonly to?: string | undefined }, nowMs: number): { readonly from: string; readonly to: string } {
  const span = (DAYS_DEFAULT - 1) * DAY_MS;
  const today = dayOf(nowMs);
  if (from === undefined) return { from: dayOf(Date.parse(to ?? today) - span), to: to ?? today };
  return { from, to: to ?? dayOf(Math.max(Date.parse(from), Math.min(Date.parse(today), Date.parse(from) + 365 * DAY_MS))) };
}

function dayOf(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10);
}
