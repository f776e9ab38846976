import type { NormSite, TokenTables } from '@tunefleet/ml-nn';
import type { BlockPaths } from '../decoder/module-sites';
import type { DeclaredProjection } from '../decoder/weight-table';
import type { ExpectedWeight } from '../loading/weight-loader';
import type { Gpt2Config } from './spec';

export interface Gpt2BlockMaps {
  /** q, k and v in one. */
  readonly qkv: DeclaredProjection;
  readonly output: DeclaredProjection;
  readonly up: DeclaredProjection;
  readonly down: DeclaredProjection;
}

export function gpt2BlockMaps({ hiddenSize: C, intermediateSize: F }: Gpt2Config, layer: number): Gpt2BlockMaps {
  const map = (name: string, inSize: number, outSize: number) => ({ path: `transformer.h.${layer}.${name}`, inSize, outSize, bias: true, fanInFanOut: true as const });
  return { qkv: map('attn.c_attn', C, 3 * C), output: map('attn.c_proj', C, C), up: map('mlp.c_fc', C, F), down: map('mlp.c_proj', F, C) };
}

export function gpt2BlockPaths(config: Gpt2Config, layer: number): BlockPaths {
  const { output, down } = gpt2BlockMaps(config, layer);
  const block = `transformer.h.${layer}`;
  return { block, attention: `${block}.attn`, attentionOutput: output.path, mlp: `${block}.mlp`, mlpOutput: down.path };
}

export interface Gpt2BlockNorms {
  readonly attention: NormSite;
  readonly mlp: NormSite;
}

export function gpt2BlockNorms(config: Gpt2Config, layer: number): Gpt2BlockNorms {
  return { attention: normSite(config, `h.${layer}.ln_1`, layer), mlp: normSite(config, `h.${layer}.ln_2`, layer) };
}

export function gpt2FinalNorm(config: Gpt2Config): NormSite {
  return normSite(config, 'ln_f', config.layers);
}

/** Every norm, in forward order. */
export function gpt2Norms(config: Gpt2Config): NormSite[] {
  return [...Array.from({ length: config.layers }, (_, layer) => Object.values<NormSite>({ ...gpt2BlockNorms(config, layer) })).flat(), gpt2FinalNorm(config)];
}

function normSite({ hiddenSize: size }: Gpt2Config, name: string, layer: number): NormSite {
  return { path: `transformer.${name}`, layer, size, biased: true };
}

/** Every linear map a tuner may adapt, in forward order. */
export function gpt2Projections(config: Gpt2Config): DeclaredProjection[] {
  return Array.from({ length: config.layers }, (_, layer) => Object.values(gpt2BlockMaps(config, layer)) as DeclaredProjection[]).flat();
}

/** Every tensor of the checkpoint. The first published files have them without `transformer.`. */
export function gpt2Weights(config: Gpt2Config): ExpectedWeight[] {
  const { hiddenSize: C, vocabSize: V } = config;
  const weight = (name: string, ...shape: number[]): ExpectedWeight => ({ name: `transformer.${name}`, shape, aliases: [name] });
  const inside = (path: string) => path.slice('transformer.'.length);
  const norms = gpt2Norms(config).flatMap(({ path, size }) => [weight(`${inside(path)}.weight`, size), weight(`${inside(path)}.bias`, size)]);
  const maps = gpt2Projections(config).flatMap(({ path, inSize, outSize }) => [weight(`${inside(path)}.weight`, inSize, outSize), weight(`${inside(path)}.bias`, outSize)]);
  return [
    weight('wte.weight', V, C),
    weight('wpe.weight', config.maxPositions, C),
    ...norms,
    ...maps,
    ...(config.tiedHead ? [] : [{ name: 'lm_head.weight', shape: [V, C] }]),
  ];
}

/** Masks that old Transformers versions stored, and a tied head stored twice. */
export function isRedundantGpt2Weight(config: Gpt2Config, name: string): boolean {
  return /\.attn\.(masked_)?bias$/.test(name) || (config.tiedHead && name === 'lm_head.weight');
}

export function gpt2Tables({ tiedHead, maxPositions }: Gpt2Config): TokenTables {
  return { embedding: 'transformer.wte', head: 'lm_head', tied: tiedHead, positions: { path: 'transformer.wpe', rows: maxPositions } };
}
