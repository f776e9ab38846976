import type { CausalLmDescription } from '../description';
import { parseModelConfig } from '../parse-config';
import { llamaConfigSchema } from './spec';
import { llamaProjections, llamaWeights } from './weight-table';

export function describeLlama(value: unknown): CausalLmDescription {
  const config = parseModelConfig(llamaConfigSchema, value);
  return {
    modelType: config.model_type,
    vocabSize: config.vocab_size,
    hiddenSize: config.hidden_size,
    intermediateSize: config.intermediate_size,
    layers: config.num_hidden_layers,
    heads: config.num_attention_heads,
    keyValueHeads: config.num_key_value_heads,
    headDim: config.head_dim,
    maxPositions: config.max_position_embeddings,
    parameterCount: llamaWeights(config).reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0),
    projections: llamaProjections(config).map(({ path, inSize, outSize }) => ({ path, inSize, outSize })),
  };
}
