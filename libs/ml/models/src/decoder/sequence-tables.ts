import { branchMask, causalMask, ropeTables, segmentMask, type Device, type FloatDType, type RopeTables, type Tensor } from '@tunefleet/ml-tensor';
import type { TokenBatch } from '../causal-lm';

/** What every block of one forward pass needs to know about positions. Borrowed. */
export interface SequenceContext {
  readonly rope: RopeTables;
  /** Added to attention scores; null: every query sees every key. */
  readonly mask: Tensor | null;
}

/** Shapes whose tables are kept: training meets few. */
const SHAPES_MAX = 16;

/** Rotary tables and masks of a model's forward passes. */
export class SequenceTables implements Disposable {
  /** By columns, for batches without positions or segments of their own. */
  private readonly plain = new Map<number, SequenceContext>();

  constructor(
    private readonly device: Device,
    private readonly inverseFrequencies: Float64Array,
    private readonly dtype: FloatDType,
  ) {}

  /**
   * Runs `fn` with the tables for a batch whose tokens follow `offset` earlier ones.
   * A tape that records `fn` must hold what it needs later: the tables may be freed afterwards.
   */
  with<T>(batch: TokenBatch, offset: number, fn: (context: SequenceContext) => T): T {
    if (!batch.positions && !batch.segments && !batch.branches && offset === 0) return fn(this.shared(batch.columns));
    const context = this.device.scope(() => this.build(batch, offset));
    try {
      return fn(context);
    } finally {
      free(context);
    }
  }

  [Symbol.dispose](): void {
    for (const context of this.plain.values()) free(context);
    this.plain.clear();
  }

  private shared(columns: number): SequenceContext {
    const known = this.plain.get(columns);
    if (known) this.plain.delete(columns);
    const context = known ?? this.device.detached(() => this.build({ rows: 1, columns }, 0));
    this.plain.set(columns, context);
    for (const [key, oldest] of this.plain) {
      if (this.plain.size <= SHAPES_MAX) break;
      this.plain.delete(key);
      free(oldest);
    }
    return context;
  }

  private build(batch: Omit<TokenBatch, 'ids'>, offset: number): SequenceContext {
    const { rows, columns, positions, segments, branches } = batch;
    const ownRows = positions ? rows : 1;
    const rope = ropeTables(this.device, {
      inverseFrequencies: this.inverseFrequencies,
      positions: positions ?? Int32Array.from({ length: columns }, (_, column) => offset + column),
      rows: ownRows,
      columns,
      dtype: this.dtype,
    });
    if (segments) return { rope, mask: segmentMask(this.device, segments, rows, columns) };
    if (branches) return { rope, mask: branchMask(this.device, branches, { rows, columns, offset }) };
    return { rope, mask: columns === 1 ? null : causalMask(this.device, columns, offset + columns, offset) };
  }
}

function free(context: SequenceContext): void {
  context.rope.cos.dispose();
  context.rope.sin.dispose();
  context.mask?.dispose();
}
