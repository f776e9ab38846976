import type { CausalLmDescription } from '../description';
import type { ExpectedWeight } from '../loading/weight-loader';
import type { DecoderConfig } from './config';
import { moduleSites } from './module-sites';
import { FINAL_NORM, blockPaths, decoderNorms, decoderProjections, decoderWeights, tokenTables, type DeclaredProjection } from './weight-table';

export function describeDecoder(config: DecoderConfig): CausalLmDescription {
  const { modelType, vocabSize, hiddenSize, intermediateSize, heads, keyValueHeads, headDim, maxPositions } = config;
  return {
    modelType,
    vocabSize,
    hiddenSize,
    intermediateSize,
    layers: config.layers.length,
    heads,
    keyValueHeads,
    headDim,
    maxPositions,
    parameterCount: countElements(decoderWeights(config)),
    activation: config.activation === 'silu' ? 'swiglu' : 'geglu',
    keptPerToken: keptPerToken(config),
    softcaps: { attention: config.attentionSoftcap !== null, logits: config.logitSoftcap !== null },
    tables: tokenTables(config),
    modules: moduleSites(config.layers.map((_, layer) => blockPaths(config, layer)), FINAL_NORM, { hiddenSize, intermediateSize, attentionWidth: heads * headDim }),
    norms: decoderNorms(config),
    projections: decoderProjections(config).map(projectionOf),
  };
}

/** Without what only loading needs. */
export function projectionOf({ bias, ...projection }: DeclaredProjection): CausalLmDescription['projections'][number] {
  return bias ? { ...projection, biased: true } : projection;
}

/** Inputs of the norms, rotated q and k, v, attention's output, gate and up. Normed values, merged heads and the gated product are computed again instead. */
function keptPerToken({ hiddenSize: C, intermediateSize: F, heads: H, keyValueHeads: K, headDim: D, outputNorms, queryKeyNorm }: DecoderConfig): CausalLmDescription['keptPerToken'] {
  const norms = (outputNorms ? 2 : 1) * C;
  return { attention: norms + 2 * (H + K) * D + (queryKeyNorm ? (H + K) * D : 0), mlp: norms + 2 * F };
}

export function countElements(weights: readonly ExpectedWeight[]): number {
  return weights.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0);
}
