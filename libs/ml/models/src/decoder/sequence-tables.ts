import { blockMask, branchMask, causalMask, disposeBlockMask, ropeTables, segmentMask, slotMask, type BlockMask, type Device, type FloatDType, type RopeTables, type Tensor } from '@tunefleet/ml-tensor';
import type { TokenBatch } from '../causal-lm';

/** How some of a model's blocks see positions. */
export interface LayerKind {
  /** [D/2]; null: positions are not rotated in. */
  readonly inverseFrequencies: Float64Array | null;
  /** Tokens a token sees, itself included; null: all before it. */
  readonly window: number | null;
}

/** What the blocks of one kind need to know about the positions of one forward pass. Borrowed. */
export interface SequenceContext {
  readonly rope: RopeTables | null;
  /** Null: every query sees every key. */
  readonly mask: BlockMask | null;
  /** Set where the keys are the slots of a cache and every row has one query: [B or 1, 1, 1, slots], added to scores; null: all are seen. */
  readonly slotMask?: Tensor | null;
}

/** One new token per row behind the `lengths[b]` tokens that a cache with so many slots holds of it. */
export interface SlotBatch {
  readonly positions: Int32Array;
  readonly lengths: Int32Array;
  readonly slots: number;
}

/** Shapes whose tables are kept: training meets few. */
const SHAPES_MAX = 16;

/** Rotary tables and masks of a model's forward passes, one context for every kind of block. */
export class SequenceTables implements Disposable {
  /** By columns, for batches without positions or segments of their own. */
  private readonly plain = new Map<number, readonly SequenceContext[]>();

  constructor(
    private readonly device: Device,
    private readonly kinds: readonly LayerKind[],
    private readonly dtype: FloatDType,
  ) {}

  /**
   * Runs `fn` with the tables for a batch whose tokens follow `offset` earlier ones.
   * A tape that records `fn` must hold what it needs later: the tables may be freed afterwards.
   */
  with<T>(batch: TokenBatch, offset: number, fn: (contexts: readonly SequenceContext[]) => T): T {
    if (!batch.positions && !batch.segments && !batch.branches && offset === 0) return fn(this.shared(batch.columns));
    const contexts = this.device.scope(() => this.build(batch, offset));
    try {
      return fn(contexts);
    } finally {
      free(contexts);
    }
  }

  /** As `with`, for one new token per row. */
  withSlots<T>(batch: SlotBatch, fn: (contexts: readonly SequenceContext[]) => T): T {
    const contexts = this.device.scope(() => this.buildSlots(batch));
    try {
      return fn(contexts);
    } finally {
      free(contexts);
    }
  }

  [Symbol.dispose](): void {
    for (const contexts of this.plain.values()) free(contexts);
    this.plain.clear();
  }

  private shared(columns: number): readonly SequenceContext[] {
    const known = this.plain.get(columns);
    if (known) this.plain.delete(columns);
    const contexts = known ?? this.device.detached(() => this.build({ rows: 1, columns }, 0));
    this.plain.set(columns, contexts);
    for (const [key, oldest] of this.plain) {
      if (this.plain.size <= SHAPES_MAX) break;
      this.plain.delete(key);
      free(oldest);
    }
    return contexts;
  }

  /** Kinds share what is equal. */
  private build(batch: SequenceBatch, offset: number): readonly SequenceContext[] {
    const masks = new Map<number, BlockMask | null>();
    const ropes = new Map<string, RopeTables | null>();
    return this.kinds.map(({ inverseFrequencies, window }) => {
      const reach = window !== null && window < offset + batch.columns ? window : Infinity;
      const mask = remembered(masks, reach, () => this.mask(batch, offset, reach));
      const rope = remembered(ropes, inverseFrequencies?.join() ?? '', () => (inverseFrequencies ? this.rope(batch, offset, inverseFrequencies) : null));
      return { rope, mask };
    });
  }

  private buildSlots({ positions, lengths, slots }: SlotBatch): readonly SequenceContext[] {
    const masks = new Map<number, Tensor | null>();
    const ropes = new Map<string, RopeTables | null>();
    const alike = positions.every((position) => position === positions[0]);
    const placed: SequenceBatch = { rows: alike ? 1 : positions.length, columns: 1, positions: alike ? positions.slice(0, 1) : positions };
    return this.kinds.map(({ inverseFrequencies, window }) => ({
      rope: remembered(ropes, inverseFrequencies?.join() ?? '', () => (inverseFrequencies ? this.rope(placed, 0, inverseFrequencies) : null)),
      mask: null,
      slotMask: remembered(masks, window ?? Infinity, () => {
        const values = slotMask(lengths, slots, window ?? Infinity);
        return values && this.device.tensor(values, [values.length / slots, 1, 1, slots], 'f32');
      }),
    }));
  }

  private rope({ rows, columns, positions }: SequenceBatch, offset: number, inverseFrequencies: Float64Array): RopeTables {
    return ropeTables(this.device, {
      inverseFrequencies,
      positions: positions ?? Int32Array.from({ length: columns }, (_, column) => offset + column),
      rows: positions ? rows : 1,
      columns,
      dtype: this.dtype,
    });
  }

  private mask({ rows, columns, positions, segments, branches }: SequenceBatch, offset: number, window: number): BlockMask | null {
    if (segments) return blockMask(this.device, segmentMask(segments, { rows, columns, offset, window }), this.dtype);
    if (branches) return blockMask(this.device, branchMask(branches, { rows, columns, offset, ...(positions && window < Infinity ? { window: { size: window, positions } } : {}) }), this.dtype);
    return columns === 1 && window === Infinity ? null : blockMask(this.device, causalMask(columns, offset + columns, offset, window), this.dtype);
  }
}

type SequenceBatch = Omit<TokenBatch, 'ids'>;

function remembered<K, V>(known: Map<K, V>, key: K, make: () => V): V {
  const found = known.get(key);
  if (found !== undefined) return found;
  const made = make();
  known.set(key, made);
  return made;
}

function free(contexts: readonly SequenceContext[]): void {
  for (const { rope, mask, slotMask: slots } of contexts) {
    for (const tensor of Object.values(rope ?? {}) as Tensor[]) tensor.dispose();
    slots?.dispose();
    if (mask) disposeBlockMask(mask);
  }
}
