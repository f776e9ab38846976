import type { TokenTables } from '@tunefleet/ml-nn';
import type { ExpectedWeight } from '../loading/weight-loader';
import type { DecoderConfig } from './config';
import type { BlockPaths } from './module-sites';

export interface DeclaredProjection {
  readonly path: string;
  readonly inSize: number;
  readonly outSize: number;
  readonly bias: boolean;
  /** The checkpoint holds it as [in, out] (`Conv1D`). */
  readonly fanInFanOut?: true;
}

/** A block's linear maps by the input they share, in forward order; each inner list is stacked into one matrix. */
export interface BlockMaps {
  readonly qkv: readonly DeclaredProjection[];
  readonly output: DeclaredProjection;
  /** Two maps, or one that gives both. */
  readonly gateUp: readonly DeclaredProjection[];
  readonly down: DeclaredProjection;
}

export function blockMaps(config: DecoderConfig, layer: number): BlockMaps {
  const { hiddenSize: C, intermediateSize: F, headDim: D, heads: H, keyValueHeads: K, bias, fusedMaps } = config;
  const attention = (name: string, inSize: number, outSize: number, biased: boolean) => ({ path: `model.layers.${layer}.self_attn.${name}`, inSize, outSize, bias: biased });
  const mlp = (name: string, inSize: number, outSize: number) => ({ path: `model.layers.${layer}.mlp.${name}`, inSize, outSize, bias: bias.mlp });
  return {
    qkv: fusedMaps
      ? [attention('qkv_proj', C, (H + 2 * K) * D, bias.qkv)]
      : [attention('q_proj', C, H * D, bias.qkv), attention('k_proj', C, K * D, bias.qkv), attention('v_proj', C, K * D, bias.qkv)],
    output: attention('o_proj', H * D, C, bias.output),
    gateUp: fusedMaps ? [mlp('gate_up_proj', C, 2 * F)] : [mlp('gate_proj', C, F), mlp('up_proj', C, F)],
    down: mlp('down_proj', F, C),
  };
}

export const FINAL_NORM = 'model.norm';

export function blockPaths(config: DecoderConfig, layer: number): BlockPaths {
  const { output, down } = blockMaps(config, layer);
  const block = `model.layers.${layer}`;
  return { block, attention: `${block}.self_attn`, attentionOutput: output.path, mlp: `${block}.mlp`, mlpOutput: down.path };
}

/** Every linear map a tuner may adapt, in forward order. */
export function decoderProjections(config: DecoderConfig): DeclaredProjection[] {
  return config.layers.flatMap((_, layer) => {
    const { qkv, output, gateUp, down } = blockMaps(config, layer);
    return [...qkv, output, ...gateUp, down];
  });
}

/** Names of a block's norms. */
export interface BlockNorms {
  readonly input: string;
  readonly query: string | null;
  readonly key: string | null;
  readonly attentionOutput: string | null;
  readonly mlpInput: string;
  readonly mlpOutput: string | null;
}

export function blockNorms({ queryKeyNorm, outputNorms }: DecoderConfig, layer: number): BlockNorms {
  const path = `model.layers.${layer}`;
  return {
    input: `${path}.input_layernorm.weight`,
    query: queryKeyNorm ? `${path}.self_attn.q_norm.weight` : null,
    key: queryKeyNorm ? `${path}.self_attn.k_norm.weight` : null,
    attentionOutput: outputNorms ? `${path}.post_attention_layernorm.weight` : null,
    mlpInput: outputNorms ? `${path}.pre_feedforward_layernorm.weight` : `${path}.post_attention_layernorm.weight`,
    mlpOutput: outputNorms ? `${path}.post_feedforward_layernorm.weight` : null,
  };
}

/** Every tensor of the checkpoint, under its Hugging Face name. */
export function decoderWeights(config: DecoderConfig): ExpectedWeight[] {
  const { hiddenSize: C, vocabSize: V, headDim: D } = config;
  const norms = config.layers.flatMap((_, layer) => {
    const { query, key, ...others } = blockNorms(config, layer);
    const named = (names: readonly (string | null)[], width: number) => names.flatMap((name) => (name === null ? [] : [{ name, shape: [width] }]));
    return [...named(Object.values(others), C), ...named([query, key], D)];
  });
  const maps = decoderProjections(config).flatMap(({ path, inSize, outSize, bias }) => [
    { name: `${path}.weight`, shape: [outSize, inSize] },
    ...(bias ? [{ name: `${path}.bias`, shape: [outSize] }] : []),
  ]);
  return [
    { name: 'model.embed_tokens.weight', shape: [V, C] },
    ...norms,
    ...maps,
    { name: `${FINAL_NORM}.weight`, shape: [C] },
    ...(config.tiedHead ? [] : [{ name: 'lm_head.weight', shape: [V, C] }]),
  ];
}

/** Tensors that checkpoints carry without adding to the function: buffers of old Transformers versions, and a tied head stored twice. */
export function isRedundantWeight(config: DecoderConfig, name: string): boolean {
  return name.endsWith('.rotary_emb.inv_freq') || (config.tiedHead && name === 'lm_head.weight');
}

export function tokenTables({ tiedHead }: { readonly tiedHead: boolean }): TokenTables {
  return { embedding: 'model.embed_tokens', head: 'lm_head', tied: tiedHead };
}
