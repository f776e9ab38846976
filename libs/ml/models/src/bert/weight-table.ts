import type { DeclaredProjection } from '../decoder/weight-table';
import type { ExpectedWeight } from '../loading/weight-loader';
import type { BertConfig } from './spec';

export interface BertBlockMaps {
  readonly qkv: readonly DeclaredProjection[];
  readonly output: DeclaredProjection;
  readonly up: DeclaredProjection;
  readonly down: DeclaredProjection;
}

/** Module paths begin with `bert.` under a classifier only, as in Transformers. */
export function bertPrefix({ classes }: BertConfig): string {
  return classes === null ? '' : 'bert.';
}

export function bertBlockMaps(config: BertConfig, layer: number): BertBlockMaps {
  const { hiddenSize: C, intermediateSize: F } = config;
  const map = (name: string, inSize: number, outSize: number): DeclaredProjection => ({ path: `${bertPrefix(config)}encoder.layer.${layer}.${name}`, inSize, outSize, bias: true });
  return {
    qkv: ['query', 'key', 'value'].map((name) => map(`attention.self.${name}`, C, C)),
    output: map('attention.output.dense', C, C),
    up: map('intermediate.dense', C, F),
    down: map('output.dense', F, C),
  };
}

/** The map of the first token's state that the classifier reads. */
export function bertPooler(config: BertConfig): DeclaredProjection {
  const { hiddenSize: C } = config;
  return { path: `${bertPrefix(config)}pooler.dense`, inSize: C, outSize: C, bias: true };
}

/** Every tensor of the checkpoint that is used. The first published files say gamma and beta; files of a bare model have no `bert.`, those of others do. */
export function bertWeights(config: BertConfig): ExpectedWeight[] {
  const { hiddenSize: C, classes } = config;
  const prefix = bertPrefix(config);
  const weight = (name: string, ...shape: number[]): ExpectedWeight => ({ name: `${prefix}${name}`, shape, aliases: [`${prefix === '' ? 'bert.' : ''}${name}`] });
  const norm = (name: string): ExpectedWeight[] =>
    [['weight', 'gamma'], ['bias', 'beta']].map(([now, old]) => ({
      name: `${prefix}${name}.${now}`,
      shape: [C],
      aliases: [`bert.${name}.${now}`, `${prefix}${name}.${old}`, `bert.${name}.${old}`],
    }));
  const map = ({ path, inSize, outSize }: DeclaredProjection) => {
    const name = path.slice(prefix.length);
    return [weight(`${name}.weight`, outSize, inSize), weight(`${name}.bias`, outSize)];
  };
  const blocks = Array.from({ length: config.layers }, (_, layer) => {
    const { qkv, output, up, down } = bertBlockMaps(config, layer);
    const path = `encoder.layer.${layer}`;
    return [...[...qkv, output, up, down].flatMap(map), ...norm(`${path}.attention.output.LayerNorm`), ...norm(`${path}.output.LayerNorm`)];
  }).flat();
  return [
    weight('embeddings.word_embeddings.weight', config.vocabSize, C),
    weight('embeddings.position_embeddings.weight', config.maxPositions, C),
    weight('embeddings.token_type_embeddings.weight', config.tokenTypes, C),
    ...norm('embeddings.LayerNorm'),
    ...blocks,
    ...(classes === null ? [] : [...map(bertPooler(config)), { name: 'classifier.weight', shape: [classes, C] }, { name: 'classifier.bias', shape: [classes] }]),
  ];
}

/** Buffers of old Transformers versions, and the pooler of a model that is used without a classifier. */
export function isRedundantBertWeight(name: string): boolean {
  return name.endsWith('embeddings.position_ids') || /^(bert\.)?pooler\.dense\.(weight|bias)$/.test(name);
}
