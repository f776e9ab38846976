import { TunefleetError } from '@tunefleet/foundation';
import { chooseTokens, GREEDY, type Sampling } from '../sampling';
import type { PrefixCache } from './prefix-cache';

export interface GenerateOptions {
  /** Most tokens to add; fewer where the model's longest sequence ends before. */
  readonly maxTokens: number;
  /** Default greedy. */
  readonly sampling?: Sampling;
  /** Tokens that end the text; they are not part of it. */
  readonly stopIds: ReadonlySet<number>;
  /** Told every token of the text as it is chosen. */
  readonly onToken?: (id: number) => void;
  readonly signal?: AbortSignal;
}

export interface Generation {
  /** New tokens, without the one that stopped it. */
  readonly ids: readonly number[];
  /** `stop`: a stop token came; `length`: `maxTokens` or the model's longest sequence was reached. */
  readonly finishReason: 'stop' | 'length';
}

/**
 * Continues a prompt token by token. The same model, adapter, prompt and sampling give the same tokens.
 * The event loop gets a turn after every token.
 * @param cache of the model and adapter to use; what it holds of the prompt already is not computed again
 * @throws TunefleetError `invalid_input` for an empty prompt or one that fills the model, `cancelled` when the signal aborts
 */
export async function generate(cache: PrefixCache, prompt: Int32Array, options: GenerateOptions): Promise<Generation> {
  const { stopIds, sampling = GREEDY, onToken, signal } = options;
  const { longest } = cache;
  checkPrompt(prompt, longest);
  const maxTokens = Math.min(options.maxTokens, longest - prompt.length);
  const sequence = new Int32Array(prompt.length + maxTokens);
  sequence.set(prompt);
  const ids: number[] = [];
  while (ids.length < maxTokens) {
    const known = sequence.subarray(0, prompt.length + ids.length);
    let id = 0;
    cache.feed(known, known.length - 1, (logits) => ([id = 0] = chooseTokens(logits, ids.length, sampling)));
    if (stopIds.has(id)) return { ids, finishReason: 'stop' };
    sequence[prompt.length + ids.length] = id;
    ids.push(id);
    onToken?.(id);
    await new Promise((resolve) => setImmediate(resolve));
    if (signal?.aborted) throw new TunefleetError('cancelled', `stopped after ${ids.length} tokens`);
  }
  return { ids, finishReason: 'length' };
}

/** @throws TunefleetError `invalid_input` */
export function checkPrompt(prompt: Int32Array, longest: number): void {
  if (prompt.length === 0) throw new TunefleetError('invalid_input', 'the prompt has no tokens; write a text', { reason: 'empty_prompt', param: 'prompt' });
  if (prompt.length < longest) return;
  throw new TunefleetError('invalid_input', `the prompt has ${prompt.length} tokens and leaves no room for an answer: the longest sequence is ${longest}; shorten the prompt`, {
    reason: 'context_length_exceeded',
    param: 'prompt',
    details: { tokens: prompt.length, limit: longest },
  });
}
