import { countElements, projectionOf } from '../decoder/describe';
import { moduleSites } from '../decoder/module-sites';
import type { CausalLmDescription } from '../description';
import { parseGpt2 } from './spec';
import { gpt2BlockPaths, gpt2FinalNorm, gpt2Norms, gpt2Projections, gpt2Tables, gpt2Weights } from './weight-table';

export function describeGpt2(value: unknown): CausalLmDescription {
  const config = parseGpt2(value);
  const { vocabSize, hiddenSize, intermediateSize, layers, heads, maxPositions } = config;
  return {
    modelType: 'gpt2',
    vocabSize,
    hiddenSize,
    intermediateSize,
    layers,
    heads,
    keyValueHeads: heads,
    headDim: hiddenSize / heads,
    maxPositions,
    parameterCount: countElements(gpt2Weights(config)),
    activation: 'gelu',
    // Inputs of both norms, q, k, v and attention's output; what enters the activation.
    keptPerToken: { attention: 5 * hiddenSize, mlp: hiddenSize + intermediateSize },
    softcaps: { attention: false, logits: false },
    tables: gpt2Tables(config),
    modules: moduleSites(Array.from({ length: layers }, (_, layer) => gpt2BlockPaths(config, layer)), gpt2FinalNorm(config).path, { hiddenSize, intermediateSize, attentionWidth: hiddenSize }),
    norms: gpt2Norms(config),
    projections: gpt2Projections(config).map(projectionOf),
  };
}
