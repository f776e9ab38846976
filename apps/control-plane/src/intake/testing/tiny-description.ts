import { describeCausalLm } from '@tunefleet/ml-models/specs';

/** A Llama small enough to count by hand. */
export const tinyDescription = describeCausalLm({
  model_type: 'llama',
  vocab_size: 100,
  hidden_size: 16,
  intermediate_size: 32,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 512,
  tie_word_embeddings: true,
});
