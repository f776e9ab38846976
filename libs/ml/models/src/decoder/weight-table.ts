import type { NormSite, TokenTables } from '@tunefleet/ml-nn';
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

/** A block's norms, in forward order. */
export interface BlockNorms {
  readonly input: NormSite;
  /** Of every head. */
  readonly query: NormSite | null;
  readonly key: NormSite | null;
  readonly attentionOutput: NormSite | null;
  readonly mlpInput: NormSite;
  readonly mlpOutput: NormSite | null;
}

export function blockNorms(config: DecoderConfig, layer: number): BlockNorms {
  const { queryKeyNorm, outputNorms, hiddenSize: C, headDim: D } = config;
  const norm = (name: string, size = C) => normSite(config, `model.layers.${layer}.${name}`, layer, size);
  return {
    input: norm('input_layernorm'),
    query: queryKeyNorm ? norm('self_attn.q_norm', D) : null,
    key: queryKeyNorm ? norm('self_attn.k_norm', D) : null,
    attentionOutput: outputNorms ? norm('post_attention_layernorm') : null,
    mlpInput: norm(outputNorms ? 'pre_feedforward_layernorm' : 'post_attention_layernorm'),
    mlpOutput: outputNorms ? norm('post_feedforward_layernorm') : null,
  };
}

export function finalNorm(config: DecoderConfig): NormSite {
  return normSite(config, FINAL_NORM, config.layers.length, config.hiddenSize);
}

/** Every norm, in forward order. */
export function decoderNorms(config: DecoderConfig): NormSite[] {
  return [...config.layers.flatMap((_, layer) => Object.values<NormSite | null>({ ...blockNorms(config, layer) }).filter((norm) => norm !== null)), finalNorm(config)];
}

function normSite({ centredNorms }: DecoderConfig, path: string, layer: number, size: number): NormSite {
  return { path, layer, size, ...(centredNorms ? { centred: true as const } : {}) };
}

/** Every tensor of the checkpoint, under its Hugging Face name. */
export function decoderWeights(config: DecoderConfig): ExpectedWeight[] {
  const { hiddenSize: C, vocabSize: V } = config;
  const norms = decoderNorms(config).map(({ path, size }) => ({ name: `${path}.weight`, shape: [size] }));
  const maps = decoderProjections(config).flatMap(({ path, inSize, outSize, bias }) => [
    { name: `${path}.weight`, shape: [outSize, inSize] },
    ...(bias ? [{ name: `${path}.bias`, shape: [outSize] }] : []),
  ]);
  return [
    { name: 'model.embed_tokens.weight', shape: [V, C] },
    ...norms,
    ...maps,
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
