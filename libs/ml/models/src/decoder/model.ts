import { invariant, TunefleetError } from '@tunefleet/foundation';
import type { Projection, ProjectionGroup, ProjectionHook } from '@tunefleet/ml-nn';
import { checkpoint, type Device, type FloatDType, type OutputHead, type Tensor } from '@tunefleet/ml-tensor';
import type { CausalLm, ForwardOptions, KeyValueCache, TokenBatch } from '../causal-lm';
import { LayeredCache } from './layered-cache';
import { SequenceTables, type LayerKind, type SequenceContext } from './sequence-tables';

/** What one forward pass tells its blocks. */
export interface BlockContext {
  readonly rows: number;
  readonly sequence: SequenceContext;
  readonly adapter: ProjectionHook | null;
  readonly cache: LayeredCache | null;
  /** Set for the last block: the rows of its output that anybody wants. After attention nothing else is computed. */
  readonly outputRows: Int32Array | null;
}

export interface DecoderBlock {
  /** Its linear maps, in forward order. */
  readonly groups: readonly ProjectionGroup[];
  /** Index into `DecoderParts.kinds`. */
  readonly kind: number;
  /** @param x [B*T, C], borrowed   @returns [B*T, C], or the wanted rows of it, the caller's */
  run(x: Tensor, context: BlockContext): Tensor;
}

/** What makes a decoder out of this frame. */
export interface DecoderParts {
  readonly modelType: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly maxPositions: number;
  /** The ways in which blocks see positions. */
  readonly kinds: readonly LayerKind[];
  /** @param positions of every token   @returns [B*T, C] */
  embed(ids: Int32Array, positions: Int32Array): Tensor;
  readonly blocks: readonly DecoderBlock[];
  finalNorm(x: Tensor): Tensor;
  readonly head: OutputHead;
  /** Every tensor of the model once, for counting and disposal. */
  readonly owned: readonly Tensor[];
}

/** The frame that all decoders share: embedding, blocks one after the other, final norm; cache, recomputation and checks. */
export class DecoderModel implements CausalLm {
  readonly modelType: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly maxPositions: number;
  readonly layers: number;
  readonly head: OutputHead;
  readonly projections: readonly Projection[];
  readonly projectionGroups: readonly ProjectionGroup[];
  readonly weightBytes: number;
  private readonly tables: SequenceTables;

  constructor(
    readonly device: Device,
    private readonly parts: DecoderParts,
    readonly computeDtype: FloatDType,
  ) {
    this.modelType = parts.modelType;
    this.vocabSize = parts.vocabSize;
    this.hiddenSize = parts.hiddenSize;
    this.maxPositions = parts.maxPositions;
    this.layers = parts.blocks.length;
    this.head = parts.head;
    this.projectionGroups = parts.blocks.flatMap(({ groups }) => groups);
    this.projections = this.projectionGroups.flatMap(({ members }) => members);
    this.weightBytes = parts.owned.reduce((sum, tensor) => sum + tensor.storage.bytes, 0);
    this.tables = new SequenceTables(device, parts.kinds, computeDtype);
  }

  openCache(rows: number): KeyValueCache {
    return new LayeredCache(this.device, rows, this.layers);
  }

  forward(batch: TokenBatch, options: ForwardOptions = {}): Tensor {
    const cache = layeredCache(options.cache);
    const offset = cache?.length ?? 0;
    this.checkBatch(batch, cache);
    try {
      const hidden = this.tables.with(batch, offset, (sequences) =>
        this.device.scope(() => this.run(batch, offset, sequences, options, cache)),
      );
      cache?.commit(batch.columns);
      return hidden;
    } catch (error) {
      cache?.truncate(offset);
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.tables[Symbol.dispose]();
    for (const tensor of this.parts.owned) tensor.dispose();
  }

  private run(batch: TokenBatch, offset: number, sequences: readonly SequenceContext[], options: ForwardOptions, cache: LayeredCache | null): Tensor {
    let x = this.parts.embed(batch.ids, positionsOf(batch, offset));
    for (const [index, block] of this.parts.blocks.entries()) {
      const input = x;
      const sequence = sequences[block.kind] as SequenceContext;
      const context: BlockContext = { rows: batch.rows, sequence, adapter: options.adapter ?? null, cache, outputRows: index === this.layers - 1 ? (options.outputRows ?? null) : null };
      const run = () => block.run(input, context);
      x = options.recomputeBlocks ? checkpoint(this.device, [input, ...tensorsOf(sequence)], run) : run();
      input.dispose();
    }
    return this.parts.finalNorm(x);
  }

  private checkBatch({ ids, rows, columns, positions, segments, branches }: TokenBatch, cache: LayeredCache | null): void {
    const count = rows * columns;
    invariant(count > 0 && ids.length === count, `a batch of ${rows} rows of ${columns} tokens came with ${ids.length} ids`);
    invariant(!positions || positions.length === count, `${count} tokens came with ${positions?.length} positions`);
    invariant(!segments || segments.length === count, `${count} tokens came with ${segments?.length} segment numbers`);
    invariant(!branches || (branches.length === count && positions && !segments), `${count} tokens came with ${branches?.length} branch numbers, or without positions, or with segments`);
    invariant(!cache || cache.rows === rows, `a cache of ${cache?.rows} rows was given a batch of ${rows}`);
    invariant(!cache || !segments, 'segments cannot be used together with a cache');
    const length = (cache?.length ?? 0) + columns;
    if (!segments && !branches && length > this.maxPositions) {
      throw new TunefleetError('invalid_input', `a sequence of ${length} tokens is longer than the ${this.maxPositions} positions of this model; shorten it or lower the number of tokens to generate`, {
        reason: 'sequence_too_long',
        details: { length, maxPositions: this.maxPositions },
      });
    }
  }
}

function positionsOf({ rows, columns, positions }: TokenBatch, offset: number): Int32Array {
  return positions ?? Int32Array.from({ length: rows * columns }, (_, i) => offset + (i % columns));
}

function tensorsOf({ rope, mask }: SequenceContext): Tensor[] {
  return [...(rope ? [rope.cos, rope.sin] : []), ...(mask ? [mask] : [])];
}

function layeredCache(cache: KeyValueCache | null | undefined): LayeredCache | null {
  if (!cache) return null;
  invariant(cache instanceof LayeredCache, 'the cache was opened by another architecture');
  return cache;
}
