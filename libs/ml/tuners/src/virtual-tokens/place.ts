import type { TunableModel } from '../tuner';

/** What PEFT notes of a model in the configuration of a prompt-learning method: `token_dim`, `num_attention_heads` and `num_layers`. */
export interface PromptPlace {
  readonly tokenDim: number;
  readonly heads: number;
  readonly layers: number;
}

/** Virtual tokens that stand among the token embeddings. */
export function embeddingPlace({ hiddenSize, layers, modules, headDim }: TunableModel): PromptPlace {
  const attention = modules.find(({ kind }) => kind === 'attention-output');
  return { tokenDim: hiddenSize, heads: (attention?.inSize ?? hiddenSize) / headDim, layers };
}

/** Virtual tokens that are keys and values. */
export function keyValuePlace({ keyValueHeads, headDim, layers }: TunableModel): PromptPlace {
  return { tokenDim: keyValueHeads * headDim, heads: keyValueHeads, layers };
}
