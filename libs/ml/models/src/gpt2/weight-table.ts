import type { TokenTables } from '@tunefleet/ml-nn';
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

export const GPT2_FINAL_NORM = 'transformer.ln_f';

export function gpt2BlockPaths(config: Gpt2Config, layer: number): BlockPaths {
  const { output, down } = gpt2BlockMaps(config, layer);
  const block = `transformer.h.${layer}`;
  return { block, attention: `${block}.attn`, attentionOutput: output.path, mlp: `${block}.mlp`, mlpOutput: down.path };
}

/** Every linear map a tuner may adapt, in forward order. */
export function gpt2Projections(config: Gpt2Config): DeclaredProjection[] {
  return Array.from({ length: config.layers }, (_, layer) => Object.values(gpt2BlockMaps(config, layer)) as DeclaredProjection[]).flat();
}

/** Every tensor of the checkpoint. The first published files have them without `transformer.`. */
export function gpt2Weights(config: Gpt2Config): ExpectedWeight[] {
  const { hiddenSize: C, vocabSize: V } = config;
  const weight = (name: string, ...shape: number[]): ExpectedWeight => ({ name: `transformer.${name}`, shape, aliases: [name] });
  const norm = (name: string) => [weight(`${name}.weight`, C), weight(`${name}.bias`, C)];
  const norms = Array.from({ length: config.layers }, (_, layer) => [...norm(`h.${layer}.ln_1`), ...norm(`h.${layer}.ln_2`)]).flat();
  const maps = gpt2Projections(config).flatMap(({ path, inSize, outSize }) => {
    const name = path.slice('transformer.'.length);
    return [weight(`${name}.weight`, inSize, outSize), weight(`${name}.bias`, outSize)];
  });
  return [
    weight('wte.weight', V, C),
    weight('wpe.weight', config.maxPositions, C),
    ...norms,
    ...maps,
    ...norm('ln_f'),
    ...(config.tiedHead ? [] : [{ name: 'lm_head.weight', shape: [V, C] }]),
  ];
}

/** Masks that old Transformers versions stored, and a tied head stored twice. */
export function isRedundantGpt2Weight(config: Gpt2Config, name: string): boolean {
  return /\.attn\.(masked_)?bias$/.test(name) || (config.tiedHead && name === 'lm_head.weight');
}

export function gpt2Tables({ tiedHead }: { readonly tiedHead: boolean }): TokenTables {
  return { embedding: 'transformer.wte', head: 'lm_head', tied: tiedHead };
}
