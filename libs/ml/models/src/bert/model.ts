import { invariant, TunefleetError } from '@tunefleet/foundation';
import { normalise, projectGroup, type ModelHook, type Norm, type Projection, type ProjectionGroup } from '@tunefleet/ml-nn';
import { add, blockMask, checkpoint, embedding, linearGroup, meanOfRows, paddingMask, selectRows, tanh, tensorsOfBlockMask, type Device, type FloatDType, type FrozenMap, type Tensor } from '@tunefleet/ml-tensor';
import type { EncodeOptions, Encoder, EncoderBatch } from '../encoder';
import { runBertBlock, type BertBlock } from './block';
import type { BertConfig } from './spec';

/** Everything on the device that a BERT owns. */
export interface BertParts {
  /** Tables [V, C], [positions, C] and [token types, C]. */
  readonly words: Tensor;
  readonly places: Tensor;
  readonly types: Tensor;
  readonly norm: Norm;
  readonly norms: readonly Norm[];
  readonly blocks: readonly BertBlock[];
  readonly classifier: { readonly pooler: ProjectionGroup; readonly map: FrozenMap } | null;
  /** Every tensor above once, for counting and disposal. */
  readonly owned: readonly Tensor[];
}

/** What an adapter may do to a decoder only. */
const DECODER_PARTS = ['forPass', 'modules', 'embed', 'positions', 'head', 'prefix', 'bypass'] as const satisfies readonly (keyof ModelHook)[];

/** @see Devlin et al. 2018, arXiv:1810.04805 */
export class BertModel implements Encoder {
  readonly modelType = 'bert';
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly layers: number;
  readonly maxPositions: number;
  readonly classes: number | null;
  readonly projections: readonly Projection[];
  readonly projectionGroups: readonly ProjectionGroup[];
  readonly modules = [];
  readonly norms: readonly Norm[];
  readonly embeddings: Tensor;
  readonly embeddingScale = 1;
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly weightBytes: number;

  constructor(
    readonly device: Device,
    private readonly config: BertConfig,
    private readonly parts: BertParts,
    readonly computeDtype: FloatDType,
  ) {
    this.vocabSize = config.vocabSize;
    this.hiddenSize = config.hiddenSize;
    this.layers = config.layers;
    this.norms = parts.norms;
    this.keyValueHeads = config.heads;
    this.embeddings = parts.words;
    this.headDim = config.hiddenSize / config.heads;
    this.maxPositions = config.maxPositions;
    this.classes = config.classes;
    const { blocks, classifier, owned } = parts;
    this.projectionGroups = [...blocks.flatMap(({ qkv, output, up, down }) => [qkv, output, up, down]), ...(classifier ? [classifier.pooler] : [])];
    this.projections = this.projectionGroups.flatMap(({ members }) => members);
    this.weightBytes = owned.reduce((sum, tensor) => sum + tensor.storage.bytes, 0);
  }

  encode(batch: EncoderBatch, { adapter = null, recomputeBlocks = false }: EncodeOptions = {}): Tensor {
    this.check(batch);
    invariant(!adapter || DECODER_PARTS.every((part) => adapter[part] === undefined), 'only linear maps and norms of an encoder can be adapted');
    const { rows, columns, lengths } = batch;
    return this.device.scope(() => {
      const mask = blockMask(this.device, paddingMask(lengths, columns), this.computeDtype);
      let x = this.embedTokens(batch, adapter);
      for (const block of this.parts.blocks) {
        const input = x;
        const run = () => runBertBlock(block, input, { rows, mask, adapter });
        x = recomputeBlocks ? checkpoint(this.device, [input, ...tensorsOfBlockMask(mask)], run) : run();
        input.dispose();
      }
      return x;
    });
  }

  embed(batch: EncoderBatch, options: EncodeOptions = {}): Tensor {
    return this.device.scope(() => meanOfRows(this.encode(batch, options), batch.lengths));
  }

  classify(batch: EncoderBatch, options: EncodeOptions = {}): Tensor {
    const { classifier } = this.parts;
    if (!classifier) throw new TunefleetError('invalid_input', 'this BERT has no classifier: its config.json does not name BertForSequenceClassification among its architectures', { reason: 'no_classifier' });
    return this.device.scope(() => {
      const firsts = Int32Array.from({ length: batch.rows }, (_, row) => row * batch.columns);
      const [pooled] = projectGroup(selectRows(this.encode(batch, options), firsts), classifier.pooler, options.adapter ?? null) as [Tensor];
      return linearGroup(tanh(pooled), [classifier.map])[0] as Tensor;
    });
  }

  [Symbol.dispose](): void {
    for (const tensor of this.parts.owned) tensor.dispose();
  }

  private embedTokens({ ids, columns, tokenTypes }: EncoderBatch, adapter: ModelHook | null): Tensor {
    const { words, places, types, norm } = this.parts;
    const positions = Int32Array.from(ids, (_, i) => i % columns);
    const look = (table: Tensor, rows: Int32Array) => embedding(table, rows, this.computeDtype);
    return normalise(add(add(look(words, ids), look(types, tokenTypes ?? new Int32Array(ids.length))), look(places, positions)), norm, adapter);
  }

  private check({ ids, rows, columns, lengths, tokenTypes }: EncoderBatch): void {
    const count = rows * columns;
    invariant(count > 0 && ids.length === count, `a batch of ${rows} rows of ${columns} tokens came with ${ids.length} ids`);
    invariant(lengths.length === rows && lengths.every((length) => length >= 1 && length <= columns), `${rows} rows need as many lengths, each from 1 to ${columns}`);
    invariant(!tokenTypes || tokenTypes.every((type) => type >= 0 && type < this.config.tokenTypes), `token types are below ${this.config.tokenTypes}`);
    if (columns > this.maxPositions) {
      throw new TunefleetError('invalid_input', `a text of ${columns} tokens is longer than the ${this.maxPositions} positions of this model; shorten it`, {
        reason: 'sequence_too_long',
        details: { length: columns, maxPositions: this.maxPositions },
      });
    }
  }
}
