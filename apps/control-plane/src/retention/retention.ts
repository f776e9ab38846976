import type { RetentionRule } from '@tunefleet/domain-jobs';
import type { Clock, Logger } from '@tunefleet/foundation';
import type { BlobSweep, Freed, RecordRule, RetentionStore, StoredBlob } from '@tunefleet/ports';

export interface RetentionDeps {
  readonly store: RetentionStore;
  readonly blobs: BlobSweep;
  readonly clock: Pick<Clock, 'now'>;
  readonly logger: Logger;
}

export interface RetentionOutcome {
  readonly freed: readonly (RetentionRule & Freed)[];
  /** False: the time was over before everything was removed. */
  readonly complete: boolean;
}

export interface RetentionRun {
  /** False: only looks. */
  readonly apply: boolean;
  /** Asked before every batch: true, and none is begun any more. */
  readonly isOver: () => boolean;
}

/** Rows removed in one transaction, and blobs asked about at once. */
const BATCH_ROWS = 1_000;
const BATCH_BLOBS = 500;

/**
 * Removes, or in a dry run counts, what the rules are about: in batches, so that nothing is held up for long, and each batch by itself, so that it
 * may be cut off anywhere and begun again.
 */
export class Retention {
  constructor(private readonly deps: RetentionDeps) {}

  async run(rules: readonly RetentionRule[], { apply, isOver }: RetentionRun): Promise<RetentionOutcome> {
    const { logger } = this.deps;
    const freed: (RetentionRule & Freed)[] = [];
    let complete = true;
    for (const rule of rules) {
      const sum = isRecordRule(rule) ? await this.rows(rule, apply, isOver) : await this.artifacts(rule, apply, isOver);
      freed.push({ ...rule, rows: sum.rows, bytes: sum.bytes });
      complete &&= sum.complete;
      if (apply && sum.rows > 0) logger.info({ kind: rule.kind, rows: sum.rows, bytes: sum.bytes, complete: sum.complete }, 'retention: removed');
    }
    return { freed, complete };
  }

  private async rows(rule: RecordRule, apply: boolean, isOver: () => boolean): Promise<Freed & { complete: boolean }> {
    if (!apply) return { ...(await this.deps.store.measure(rule)), complete: true };
    const sum = { rows: 0, bytes: 0 };
    while (!isOver()) {
      const { rows, bytes } = await this.deps.store.remove(rule, BATCH_ROWS);
      sum.rows += rows;
      sum.bytes += bytes;
      if (rows < BATCH_ROWS) return { ...sum, complete: true };
    }
    return { ...sum, complete: false };
  }

  private async artifacts({ olderThanMs }: RetentionRule, apply: boolean, isOver: () => boolean): Promise<Freed & { complete: boolean }> {
    const sinceMs = this.deps.clock.now() - olderThanMs;
    const sum = { rows: 0, bytes: 0 };
    for await (const batch of batchesOf(this.deps.blobs.list(), ({ storedAtMs }) => storedAtMs < sinceMs)) {
      if (isOver()) return { ...sum, complete: false };
      const unreferenced = new Set(await this.deps.store.unreferenced(batch.map(({ sha256 }) => sha256)));
      for (const { sha256, bytes } of batch) {
        if (!unreferenced.has(sha256) || (apply && !(await this.deps.blobs.removeUntouched(sha256, sinceMs)))) continue;
        sum.rows++;
        sum.bytes += bytes;
      }
    }
    return { ...sum, complete: true };
  }
}

function isRecordRule(rule: RetentionRule): rule is RecordRule {
  return rule.kind !== 'artifacts';
}

async function* batchesOf(blobs: AsyncIterable<StoredBlob>, isWanted: (blob: StoredBlob) => boolean): AsyncGenerator<StoredBlob[]> {
  let batch: StoredBlob[] = [];
  for await (const blob of blobs) {
    if (!isWanted(blob)) continue;
    batch.push(blob);
    if (batch.length < BATCH_BLOBS) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}
