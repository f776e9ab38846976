import type { RetentionKind } from '@tunefleet/contracts';
import type { RetentionRule } from '@tunefleet/domain-jobs';

/** What is removed from the record; the rest are blobs. */
export type RecordKind = Exclude<RetentionKind, 'artifacts'>;

export type RecordRule = RetentionRule & { readonly kind: RecordKind };

export interface Freed {
  readonly rows: number;
  readonly bytes: number;
}

/** What is old, for removal. Nothing that belongs to a job that has not ended is ever old. */
export interface RetentionStore {
  /** What the rule would remove now. */
  measure(rule: RecordRule): Promise<Freed>;
  /** Removes at most `limit` rows in one transaction; what somebody else holds is left for the next time. */
  remove(rule: RecordRule, limit: number): Promise<Freed>;
  /**
   * Those of the blobs that nothing needs: no file or adapter that was not deleted, no checkpoint, nothing a job that has not ended was given
   * or has sent.
   */
  unreferenced(sha256s: readonly string[]): Promise<readonly string[]>;
  /** True for one caller in any `everyMs`, of all replicas: it is to do the task of that name. */
  claimTask(name: string, everyMs: number): Promise<boolean>;
}
