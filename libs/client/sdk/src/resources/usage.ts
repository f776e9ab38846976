import { usageReportSchema, type UsageReport } from '@tunefleet/contracts';
import { path, type CallOptions, type Transport } from '../http/transport';

export interface UsageQuery extends CallOptions {
  /** First and last day, UTC: `2026-11-25`. Default: the last 30 days. */
  readonly from?: string | undefined;
  readonly to?: string | undefined;
  readonly team?: string | undefined;
}

/** GPU time by day and team. */
export class Usage {
  constructor(private readonly transport: Transport) {}

  report({ signal, from, to, team }: UsageQuery = {}): Promise<UsageReport> {
    return this.transport.json(usageReportSchema, { path: path('/api/v1', 'usage'), query: { from, to, team }, signal });
  }
}
