import { retentionReportSchema, type RetentionKind, type RetentionReport } from '@tunefleet/contracts';
import { path, type CallOptions, type Transport } from '../http/transport';

export interface RetentionRequest extends CallOptions {
  /** False, the default: nothing is removed. */
  readonly apply?: boolean;
  /** Only of these kinds; default: every kind by its default. */
  readonly rules?: Readonly<Partial<Record<RetentionKind, { readonly older_than_seconds: number; readonly keep?: number | undefined }>>> | undefined;
}

/** What is old and nobody needs. */
export class Retention {
  constructor(private readonly transport: Transport) {}

  /** A report that is not `complete` asks to be called again. */
  run({ signal, apply = false, rules }: RetentionRequest = {}): Promise<RetentionReport> {
    return this.transport.json(retentionReportSchema, { method: 'POST', path: path('/api/v1', 'retention'), json: { apply, ...(rules === undefined ? {} : { rules }) }, signal });
  }
}
