import { invariant, TunefleetError } from '@tunefleet/foundation';
import { hooked, hookOfPass, isHooked, normalise, type KeysValues, type ModelHook, type ModuleSite, type Norm, type PrefixModel, type Projection, type ProjectionGroup, type Stems, type TokenTables } from '@tunefleet/ml-nn';
import { add, checkpoint, embedding, replaceRows, scale, selectRows, tensorsOfBlockMask, withoutGradients, type Device, type FloatDType, type OutputHead, type Tensor } from '@tunefleet/ml-tensor';
import type { CausalLm, ForwardOptions, KeyValueCache, TokenBatch } from '../causal-lm';
import type { BlockContext, DecoderBlock, KeyValueStore } from './block';
import { LayeredCache } from './layered-cache';
import { moduleSites } from './module-sites';
import { PrefixedKeysValues } from './prefixed-keys-values';
import { SequenceTables, type LayerKind, type SequenceContext } from './sequence-tables';

/** What makes a decoder out of this frame. */
export interface DecoderParts {
  readonly modelType: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly maxPositions: number;
  /** The ways in which blocks see positions. */
  readonly kinds: readonly LayerKind[];
  readonly tables: TokenTables;
  /** [V, C] */
  readonly embeddings: Tensor;
  /** Factor of the embeddings; 1: none. */
  readonly embeddingScale: number;
  /** Models with learned positions: their table [positions, C]. */
  readonly positions?: Tensor;
  readonly blocks: readonly DecoderBlock[];
  /** In forward order. */
  readonly norms: readonly Norm[];
  readonly finalNorm: Norm;
  readonly head: OutputHead;
  /** Every tensor of the model once, for counting and disposal. */
  readonly owned: readonly Tensor[];
}

/** One pass, settled. */
interface Pass {
  readonly rows: number;
  /** Of every token. */
  readonly positions: Int32Array;
  /** By kind of block. */
  readonly sequences: readonly SequenceContext[];
  readonly adapter: ModelHook | null;
  readonly keysValues: KeyValueStore | null;
  readonly outputRows: Int32Array | null;
  readonly recomputeBlocks: boolean;
  readonly entering: ForwardOptions['entering'];
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
  readonly modules: readonly ModuleSite[];
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly embeddings: Tensor;
  readonly embeddingScale: number;
  readonly tables: TokenTables;
  readonly norms: readonly Norm[];
  readonly positions?: Tensor;
  readonly weightBytes: number;
  private readonly sequenceTables: SequenceTables;

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
    this.modules = moduleSites(parts.blocks.map(({ paths }) => paths), parts.finalNorm.path, { ...parts, attentionWidth: parts.heads * parts.headDim });
    this.keyValueHeads = parts.keyValueHeads;
    this.headDim = parts.headDim;
    this.tables = parts.tables;
    this.norms = parts.norms;
    if (parts.positions) this.positions = parts.positions;
    this.embeddings = parts.embeddings;
    this.embeddingScale = parts.embeddingScale;
    this.weightBytes = [...new Set(parts.owned.map(({ storage }) => storage))].reduce((sum, { bytes }) => sum + bytes, 0);
    this.sequenceTables = new SequenceTables(device, parts.kinds, computeDtype);
  }

  openCache(rows: number): KeyValueCache {
    return new LayeredCache(this.device, rows, this.layers);
  }

  forward(batch: TokenBatch, options: ForwardOptions = {}): Tensor {
    const settled = { ...options, adapter: adapterOf(batch, options) };
    const bypass = settled.adapter?.bypass;
    if (!bypass) return this.throughBlocks(batch, settled, (ids, pass) => this.finalNorm(this.runBlocks(ids, pass), pass.adapter));
    return this.device.scope(() => {
      const stems = settled.stems ?? this.stems(batch, bypass.states, settled);
      return this.finalNorm(bypass.run(stems), settled.adapter);
    });
  }

  stems(batch: TokenBatch, states: readonly number[], options: ForwardOptions = {}): Stems {
    return withoutGradients(this.device, () =>
      this.throughBlocks(batch, { ...options, adapter: adapterOf(batch, options) }, (ids, pass) => {
        const wanted = (x: Tensor): Tensor => (pass.outputRows ? selectRows(x, pass.outputRows) : this.device.alias(x));
        const kept: (Tensor | null)[] = [];
        this.runBlocks(ids, pass, {
          until: Math.max(...states),
          onHidden: (x, layer) => kept.push(!states.includes(layer + 1) ? null : layer === this.layers - 1 ? this.device.alias(x) : wanted(x)),
        });
        return kept;
      }),
    );
  }

  [Symbol.dispose](): void {
    this.sequenceTables[Symbol.dispose]();
    for (const tensor of this.parts.owned) tensor.dispose();
  }

  private throughBlocks<T>(batch: TokenBatch, options: ForwardOptions, run: (ids: Int32Array, pass: Pass) => T): T {
    const cache = layeredCache(options.cache);
    const adapter = options.adapter ?? null;
    const { prefix } = adapter ?? {};
    const virtual = prefix?.length ?? 0;
    const known = cache?.length ?? 0;
    const placed: TokenBatch = batch.positions && virtual > 0 ? { ...batch, positions: batch.positions.map((position) => position + virtual) } : batch;
    this.checkBatch(batch, cache, virtual);
    const { outputRows = null, recomputeBlocks = false, entering } = options;
    const decodes = cache !== null && batch.columns === 1 && !batch.branches;
    const offsets = Int32Array.from({ length: batch.rows }, (_, row) => cache?.lengths[row] ?? 0);
    const real = placed.positions ?? positionsBehind(offsets, batch.columns, virtual);
    try {
      const result = this.device.scope(() => {
        const lead = adapter && prefix ? prefix.keysValues(this.prefixModel(adapter)) : null;
        const slots = cache?.begin(batch.columns, decodes, lead) ?? 0;
        const keysValues = cache ?? (lead && new PrefixedKeysValues(lead));
        const positions = prefix?.behindPositions ? (batch.positions ?? positionsBehind(offsets, batch.columns, 0)) : real;
        const through = (sequences: readonly SequenceContext[]): T => run(batch.ids, { rows: batch.rows, positions, sequences, adapter, keysValues, outputRows, recomputeBlocks, entering });
        if (!decodes) return this.sequenceTables.with(placed, known + virtual, through);
        return this.sequenceTables.withSlots({ positions: real, lengths: offsets.map((length) => length + virtual), slots }, through);
      });
      cache?.commit();
      return result;
    } finally {
      cache?.end();
    }
  }

  /**
   * @param options.until blocks that are run, counted from the first   @param options.onHidden told what enters the first block (layer -1) and what each block gives; borrowed
   * @returns [B*T, C] or the wanted rows, the caller's
   */
  private runBlocks(ids: Int32Array, pass: Pass, { until = this.layers, onHidden }: { until?: number; onHidden?: (x: Tensor, layer: number) => void } = {}): Tensor {
    const { layer: first, hidden } = pass.entering ?? { layer: 0, hidden: null };
    let x = hidden ? this.device.alias(hidden) : this.embed(ids, pass);
    onHidden?.(x, -1);
    for (const [layer, block] of this.parts.blocks.slice(0, until).entries()) {
      if (layer < first) continue;
      const input = x;
      const context = this.blockContext(layer, pass);
      const run = () => this.runBlock(block, input, context);
      x = pass.recomputeBlocks ? checkpoint(this.device, [input, ...tensorsOf(context.sequence), ...(pass.keysValues?.inputsOf?.(layer) ?? [])], run) : run();
      input.dispose();
      onHidden?.(x, layer);
    }
    return x;
  }

  private runBlock({ run, paths }: DecoderBlock, x: Tensor, context: BlockContext): Tensor {
    const { adapter, outputRows } = context;
    if (!isHooked(adapter, paths.block)) return run(x, context);
    return this.device.scope(() => hooked(run(x, context), outputRows ? selectRows(x, outputRows) : x, adapter, paths.block));
  }

  private finalNorm(x: Tensor, adapter: ModelHook | null): Tensor {
    const { finalNorm } = this.parts;
    return this.device.scope(() => hooked(normalise(x, finalNorm, adapter), x, adapter, finalNorm.path));
  }

  private blockContext(layer: number, { rows, sequences, adapter, keysValues, outputRows }: Pass): BlockContext {
    const { kind } = this.parts.blocks[layer] as DecoderBlock;
    return { rows, sequence: sequences[kind] as SequenceContext, adapter, keysValues, outputRows: layer === this.layers - 1 ? outputRows : null };
  }

  private embed(ids: Int32Array, { positions, adapter }: Pass): Tensor {
    const { embeddings, embeddingScale } = this;
    return this.device.scope(() => {
      const rows = embedding(embeddings, ids, this.computeDtype);
      const embedded = embeddingScale === 1 ? rows : scale(rows, embeddingScale);
      return this.addPositions(adapter?.embed?.(embedded, ids, embeddingScale) ?? embedded, positions, adapter);
    });
  }

  /** @param x [B*T, C], borrowed */
  private addPositions(x: Tensor, positions: Int32Array, adapter: ModelHook | null): Tensor {
    const table = this.positions;
    if (!table) return x;
    checkPositions(positions, table.dim(0));
    const rows = embedding(table, positions, this.computeDtype);
    return add(x, adapter?.positions ? replaceRows(rows, adapter.positions, positions, 1) : rows);
  }

  /** Runs virtual tokens as one row of their own: no real token is seen by them, so their keys and values are the same for every row. */
  private prefixModel(active: ModelHook): PrefixModel {
    const { prefix: _prefix, bypass: _bypass, ...adapter } = active;
    const run = (columns: number, inputs: (pass: Pass) => ReadonlyMap<number, Tensor>): readonly KeysValues[] =>
      this.sequenceTables.with({ ids: new Int32Array(columns), rows: 1, columns }, 0, (sequences) =>
        this.device.scope(() => {
          const pass: Pass = { rows: 1, positions: Int32Array.from({ length: columns }, (_, i) => i), sequences, adapter, keysValues: null, outputRows: null, recomputeBlocks: false, entering: null };
          return this.prefixKeysValues(inputs(pass), pass);
        }),
      );
    return {
      active,
      ofPrompt: (prompt) => run(prompt.dim(0), ({ positions }) => new Map([[0, this.addPositions(prompt, positions, adapter)]])),
      ofLayerInputs: (inputs) => run(inputs.get(0)?.dim(0) ?? 0, () => inputs),
    };
  }

  /** @param inputs of layers that do not go on from the one before */
  private prefixKeysValues(inputs: ReadonlyMap<number, Tensor>, pass: Pass): readonly KeysValues[] {
    const first = inputs.get(0);
    invariant(first, 'virtual tokens must enter the first block');
    let x = first;
    return this.parts.blocks.map((block, layer) => {
      const context = this.blockContext(layer, pass);
      x = inputs.get(layer) ?? x;
      // For the few virtual tokens, projecting once more costs less than carrying these out of the block.
      const seen = block.keysValues(x, context);
      if (layer + 1 < this.layers && !inputs.has(layer + 1)) x = this.runBlock(block, x, context);
      return seen;
    });
  }

  private checkBatch({ ids, rows, columns, positions, segments, branches }: TokenBatch, cache: LayeredCache | null, virtual: number): void {
    const count = rows * columns;
    invariant(count > 0 && ids.length === count, `a batch of ${rows} rows of ${columns} tokens came with ${ids.length} ids`);
    invariant(!positions || positions.length === count, `${count} tokens came with ${positions?.length} positions`);
    invariant(!segments || segments.length === count, `${count} tokens came with ${segments?.length} segment numbers`);
    invariant(!branches || (branches.length === count && positions && !segments), `${count} tokens came with ${branches?.length} branch numbers, or without positions, or with segments`);
    invariant(!cache || cache.rows === rows, `a cache of ${cache?.rows} rows was given a batch of ${rows}`);
    invariant(!cache || !segments, 'segments cannot be used together with a cache');
    const length = virtual + (cache?.length ?? 0) + columns;
    if (!segments && !branches && length > this.maxPositions) {
      throw new TunefleetError('invalid_input', `a sequence of ${length} tokens is longer than the ${this.maxPositions} positions of this model; shorten it or lower the number of tokens to generate`, {
        reason: 'sequence_too_long',
        details: { length, maxPositions: this.maxPositions },
      });
    }
  }
}

/** Learned positions end, whatever the length of the row. */
function checkPositions(positions: Int32Array, most: number): void {
  const beyond = positions.find((position) => position >= most);
  if (beyond === undefined) return;
  throw new TunefleetError('invalid_input', `a sequence of ${beyond + 1} tokens or more is longer than the ${most} positions this model has learned; shorten it`, {
    reason: 'sequence_too_long',
    details: { length: beyond + 1, maxPositions: most },
  });
}

function adapterOf({ rows, columns }: TokenBatch, { adapter = null, outputRows = null }: ForwardOptions): ModelHook | null {
  return hookOfPass(adapter, { rows, columns, outputRows });
}

/** Positions of `columns` tokens per row behind its `offsets[row]` and `virtual` more. */
function positionsBehind(offsets: Int32Array, columns: number, virtual: number): Int32Array {
  return Int32Array.from({ length: offsets.length * columns }, (_, i) => virtual + (offsets[Math.floor(i / columns)] ?? 0) + (i % columns));
}

function tensorsOf({ rope, mask }: SequenceContext): Tensor[] {
  return [...(Object.values(rope ?? {}) as Tensor[]), ...(mask ? tensorsOfBlockMask(mask) : [])];
}

function layeredCache(cache: KeyValueCache | null | undefined): LayeredCache | null {
  if (!cache) return null;
  invariant(cache instanceof LayeredCache, 'the cache was opened by another architecture');
  return cache;
}
