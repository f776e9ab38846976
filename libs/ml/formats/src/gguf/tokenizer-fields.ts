/**
 * Hugging Face tokenizer files -> GGUF metadata: byte-level BPE, and BPE over SentencePiece's characters with byte fallback.
 * @see https://github.com/ggml-org/llama.cpp `gguf-py/gguf/vocab.py`, `src/llama-vocab.cpp`
 */
import { z } from 'zod';
import { TunefleetError, canonicalJson } from '@tunefleet/foundation';
import type { GgufField } from './writer';

const tokenizerSchema = z.object({
  added_tokens: z.array(z.object({ id: z.int().min(0).max(4_000_000), content: z.string(), special: z.boolean() })).default([]),
  normalizer: z.unknown().optional(),
  pre_tokenizer: z.unknown().optional(),
  post_processor: z.unknown().optional(),
  model: z.object({
    type: z.literal('BPE', { error: 'only BPE tokenizers can be written to GGUF' }),
    vocab: z.record(z.string(), z.int().min(0).max(4_000_000)),
    merges: z.array(z.union([z.string(), z.tuple([z.string(), z.string()])])),
    byte_fallback: z.boolean().nullish(),
    unk_token: z.string().nullish(),
  }),
});

const TOKEN_TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

const wordPattern = (digits: string): string =>
  `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;

export interface TokenizerSources {
  /** Content of `tokenizer.json`. */
  readonly tokenizer: unknown;
  /** Content of `tokenizer_config.json`. */
  readonly tokenizerConfig: Readonly<Record<string, unknown>>;
  readonly chatTemplate: string | null;
  /** Rows of the embedding: ids above the tokenizer's own are filled. */
  readonly vocabSize: number;
  /** Ids of config.json, for roles the tokenizer does not name. */
  readonly ids: { readonly bos: number | null; readonly eos: number | null; readonly pad: number | null };
}

/** @throws TunefleetError `incompatible_artifact`, reason `unsupported_tokenizer` */
export function ggufTokenizerFields({ tokenizer, tokenizerConfig, chatTemplate, vocabSize, ids }: TokenizerSources): Map<string, GgufField> {
  const parsed = tokenizerSchema.safeParse(tokenizer);
  if (!parsed.success) throw unsupported(`${parsed.error.issues[0]?.path.join('.')}: ${parsed.error.issues[0]?.message}`);
  const { model, added_tokens: added, normalizer, pre_tokenizer: preTokenizer, post_processor: postProcessor } = parsed.data;
  const tokens: string[] = [];
  const types: number[] = [];
  for (const [content, id] of Object.entries(model.vocab)) {
    tokens[id] = content;
    types[id] = model.byte_fallback === true && /^<0x[0-9A-F]{2}>$/.test(content) ? TOKEN_TYPE.byte : TOKEN_TYPE.normal;
  }
  for (const { id, content, special } of added) {
    tokens[id] = content;
    types[id] = content === model.unk_token ? TOKEN_TYPE.unknown : special ? TOKEN_TYPE.control : TOKEN_TYPE.userDefined;
  }
  if (tokens.length > vocabSize) throw unsupported(`it has ${tokens.length} tokens, but the model's embedding has ${vocabSize} rows`);
  for (let id = 0; id < vocabSize; id++) {
    if (tokens[id] !== undefined) continue;
    tokens[id] = `[PAD${id}]`;
    types[id] = TOKEN_TYPE.unused;
  }
  const fields = new Map<string, GgufField>();
  const merges = model.merges.map((merge): [string, string] => (typeof merge === 'string' ? splitOnce(merge) : [...merge]));
  if (model.byte_fallback === true) {
    fields.set('tokenizer.ggml.model', { type: 'string', value: 'llama' });
    fields.set('tokenizer.ggml.scores', { type: 'f32s', value: scoresOf(tokens, merges) });
    fields.set('tokenizer.ggml.add_space_prefix', { type: 'bool', value: /"Prepend"|"prepend_scheme":"(first|always)"|"add_prefix_space":true/.test(canonicalJson([normalizer ?? null, preTokenizer ?? null])) });
  } else {
    fields.set('tokenizer.ggml.model', { type: 'string', value: 'gpt2' });
    fields.set('tokenizer.ggml.pre', { type: 'string', value: preTokenizerName(preTokenizer) });
    fields.set('tokenizer.ggml.merges', { type: 'strings', value: merges.map((merge) => merge.join(' ')) });
  }
  fields.set('tokenizer.ggml.tokens', { type: 'strings', value: tokens });
  fields.set('tokenizer.ggml.token_type', { type: 'i32s', value: types });
  const idOf = (role: 'bos' | 'eos' | 'pad' | 'unk'): number => {
    const named = tokenizerConfig[`${role}_token`];
    const content = typeof named === 'string' ? named : (named as { content?: unknown } | null | undefined)?.content;
    const found = typeof content === 'string' ? tokens.indexOf(content) : -1;
    return found >= 0 ? found : role === 'unk' ? -1 : (ids[role] ?? -1);
  };
  for (const [role, key] of [['bos', 'bos'], ['eos', 'eos'], ['pad', 'padding'], ['unk', 'unknown']] as const) {
    const id = idOf(role);
    if (id >= 0) fields.set(`tokenizer.ggml.${key}_token_id`, { type: 'u32', value: id });
  }
  fields.set('tokenizer.ggml.add_bos_token', { type: 'bool', value: addsBos(tokenizerConfig['add_bos_token'], postProcessor, tokens[idOf('bos')]) });
  if (chatTemplate !== null) fields.set('tokenizer.chat_template', { type: 'string', value: chatTemplate });
  return fields;
}

/** Merging by best score then is merging by rank: a token's score is less the rank of the merge that makes it. */
function scoresOf(tokens: readonly string[], merges: readonly (readonly [string, string])[]): number[] {
  const ranks = new Map<string, number>();
  merges.forEach((merge, rank) => {
    const made = merge.join('');
    if (!ranks.has(made)) ranks.set(made, rank);
  });
  return tokens.map((token) => -(ranks.get(token) ?? merges.length));
}

function preTokenizerName(preTokenizer: unknown): string {
  const text = canonicalJson(preTokenizer ?? null);
  const has = (pattern: string): boolean => text.includes(JSON.stringify(pattern));
  if (has(wordPattern('\\p{N}{1,3}'))) return 'llama-bpe';
  if (has(wordPattern('\\p{N}'))) return 'qwen2';
  const parts = ((preTokenizer as { pretokenizers?: unknown[] } | null)?.pretokenizers ?? [preTokenizer]) as readonly { readonly type?: string; readonly individual_digits?: boolean; readonly use_regex?: boolean }[];
  const shape = parts.map((part) => part?.type).join();
  if (shape === 'ByteLevel' && parts[0]?.use_regex !== false) return 'gpt-2';
  if (shape === 'Digits,ByteLevel' && parts[0]?.individual_digits === true && parts[1]?.use_regex !== false) return 'smollm';
  throw unsupported('it splits text in a way that GGUF has no name for here; known are those of GPT-2, SmolLM, Llama 3 and Qwen 2');
}

function addsBos(said: unknown, postProcessor: unknown, bos: string | undefined): boolean {
  if (typeof said === 'boolean') return said;
  return bos !== undefined && canonicalJson(postProcessor ?? null).includes(JSON.stringify(bos));
}

function splitOnce(merge: string): [string, string] {
  const at = merge.indexOf(' ');
  return [merge.slice(0, at), merge.slice(at + 1)];
}

function unsupported(what: string): TunefleetError {
  return new TunefleetError('incompatible_artifact', `the tokenizer cannot be written to GGUF: ${what}`, { reason: 'unsupported_tokenizer' });
}
