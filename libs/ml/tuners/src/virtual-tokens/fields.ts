import { z } from 'zod';
import { refusalOf } from '../spec-refusal';

const DEFAULT_TOKENS = 20;
const TOKENS_MAX = 4096;

export const virtualTokenCount = z.int().min(1).max(TOKENS_MAX);

/** In every specification of a prompt-learning method. */
export const numVirtualTokens = virtualTokenCount.default(DEFAULT_TOKENS);

/** What PEFT fills in from the model, or has for other models; null is as good as nothing. */
const NOT_CHOSEN = ['token_dim', 'num_transformer_submodules', 'num_attention_heads', 'num_layers', 'modules_to_save', 'tokenizer_name_or_path', 'tokenizer_kwargs'];

/** @throws TunefleetError `invalid_input` naming the field */
export function parsePromptFields<S extends z.ZodObject>(schema: S, fields: Readonly<Record<string, unknown>>, title: string): z.infer<S> {
  const given = Object.fromEntries(Object.entries(fields).filter(([name, value]) => !(NOT_CHOSEN.includes(name) && value === null)));
  const parsed = schema.safeParse(given);
  if (parsed.success) return parsed.data;
  throw refusalOf(parsed.error, Object.keys(schema.shape), title);
}
