import { invariant, TunefleetError } from '@tunefleet/foundation';
import type { Projection, ProjectionGroup } from '@tunefleet/ml-nn';
import { checkpoint, embedding, rmsNorm, type Device, type FloatDType, type FrozenMatrix, type Tensor } from '@tunefleet/ml-tensor';
import type { CausalLm, ForwardOptions, KeyValueCache, TokenBatch } from '../causal-lm';
import { LayeredCache } from '../decoder/layered-cache';
import { SequenceTables, type SequenceContext } from '../decoder/sequence-tables';
import { runBlock, type BlockContext, type LlamaBlock } from './block';
import { inverseFrequencies } from './rope-frequencies';
import type { LlamaConfig } from './spec';

/** Everything on the device that a Llama owns. */
export interface LlamaParts {
  /** [V, C] */
  readonly embedding: Tensor;
  readonly blocks: readonly LlamaBlock[];
  /** [C] */
  readonly norm: Tensor;
  readonly head: FrozenMatrix;
  /** Every tensor above once, for counting and disposal. */
  readonly owned: readonly Tensor[];
}

/** Llama and what shares its blocks: RMSNorm, rotary positions, grouped key/value heads, SwiGLU. @see Touvron et al. 2023, arXiv:2302.13971 */
export class LlamaModel implements CausalLm {
  readonly projections: readonly Projection[];
  readonly projectionGroups: readonly ProjectionGroup[];
  readonly weightBytes: number;
  private readonly tables: SequenceTables;

  constructor(
    readonly device: Device,
    private readonly config: LlamaConfig,
    private readonly parts: LlamaParts,
    readonly computeDtype: FloatDType,
  ) {
    this.projectionGroups = parts.blocks.flatMap(({ qkv, o, gateUp, down }) => [qkv, o, gateUp, down]);
    this.projections = this.projectionGroups.flatMap(({ members }) => members);
    this.weightBytes = parts.owned.reduce((sum, tensor) => sum + tensor.storage.bytes, 0);
    this.tables = new SequenceTables(device, inverseFrequencies(config), computeDtype);
  }

  get modelType(): string {
    return this.config.model_type;
  }

  get vocabSize(): number {
    return this.config.vocab_size;
  }

  get hiddenSize(): number {
    return this.config.hidden_size;
  }

  get layers(): number {
    return this.parts.blocks.length;
  }

  get maxPositions(): number {
    return this.config.max_position_embeddings;
  }

  get head(): FrozenMatrix {
    return this.parts.head;
  }

  openCache(rows: number): KeyValueCache {
    return new LayeredCache(this.device, rows, this.parts.blocks.length);
  }

  forward(batch: TokenBatch, options: ForwardOptions = {}): Tensor {
    const cache = layeredCache(options.cache);
    const offset = cache?.length ?? 0;
    this.checkBatch(batch, cache);
    try {
      const hidden = this.tables.with(batch, offset, (sequence) =>
        this.device.scope(() => this.run(batch, sequence, options, cache)),
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

  private run(batch: TokenBatch, sequence: SequenceContext, options: ForwardOptions, cache: LayeredCache | null): Tensor {
    const context: BlockContext = { config: this.config, rows: batch.rows, sequence, adapter: options.adapter ?? null, cache };
    const { rope, mask } = sequence;
    let x = embedding(this.parts.embedding, batch.ids);
    for (const block of this.parts.blocks) {
      const input = x;
      const inputs = mask ? [input, rope.cos, rope.sin, mask] : [input, rope.cos, rope.sin];
      x = options.recomputeBlocks ? checkpoint(this.device, inputs, () => runBlock(block, input, context)) : runBlock(block, input, context);
      input.dispose();
    }
    return rmsNorm(x, this.parts.norm, this.config.rms_norm_eps);
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

function layeredCache(cache: KeyValueCache | null | undefined): LayeredCache | null {
  if (!cache) return null;
  invariant(cache instanceof LayeredCache, 'the cache was opened by another architecture');
  return cache;
}
