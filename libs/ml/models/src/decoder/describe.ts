import type { CausalLmDescription } from '../description';
import type { ExpectedWeight } from '../loading/weight-loader';
import type { DecoderConfig } from './config';
import { decoderProjections, decoderWeights, type DeclaredProjection } from './weight-table';

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
    projections: decoderProjections(config).map(projectionOf),
  };
}

/** Without what only loading needs. */
export function projectionOf({ bias: _bias, ...projection }: DeclaredProjection): CausalLmDescription['projections'][number] {
  return projection;
}

export function countElements(weights: readonly ExpectedWeight[]): number {
  return weights.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0);
}
