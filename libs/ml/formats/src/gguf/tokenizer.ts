import { z } from 'zod';
import { TunefleetError } from '@tunefleet/foundation';
import type { GgufValue } from './file';

/** GGUF token types: 3 control, 4 defined by the user. Both are matched before the model splits text. */
const CONTROL = 3;
const USER_DEFINED = 4;

const tokenId = z.int().min(0).optional();
const ggufTokenizerSchema = z.object({
  'tokenizer.ggml.model': z.literal('gpt2', { error: 'only byte-level BPE ("gpt2") tokenizers can be rebuilt from GGUF' }),
  'tokenizer.ggml.pre': z.string().default('gpt-2'),
  'tokenizer.ggml.tokens': z.array(z.string()).min(1).max(2_000_000),
  'tokenizer.ggml.token_type': z.array(z.int()),
  'tokenizer.ggml.merges': z.array(z.string().regex(/^\S+ \S+$/)).max(4_000_000),
  'tokenizer.ggml.bos_token_id': tokenId,
  'tokenizer.ggml.eos_token_id': tokenId,
  'tokenizer.ggml.unknown_token_id': tokenId,
  'tokenizer.ggml.padding_token_id': tokenId,
  'tokenizer.ggml.add_bos_token': z.boolean().default(false),
  'tokenizer.chat_template': z.string().max(1_000_000).optional(),
});

const BYTE_LEVEL = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true } as const;

/** llama.cpp's name for a pre-tokenizer -> the Hugging Face components that split the same way. */
const PRE_TOKENIZERS: Readonly<Record<string, object>> = {
  'gpt-2': BYTE_LEVEL,
  smollm: { type: 'Sequence', pretokenizers: [{ type: 'Digits', individual_digits: true }, BYTE_LEVEL] },
};

export interface TokenizerFiles {
  /** `tokenizer.json` */
  readonly tokenizer: object;
  /** `tokenizer_config.json`, with the chat template when there is one */
  readonly tokenizerConfig: object;
  readonly specialIds: { readonly bos: number | null; readonly eos: number | null; readonly pad: number | null };
}

/**
 * Rebuilds the Hugging Face tokenizer files from GGUF metadata.
 * @throws TunefleetError `incompatible_artifact` when the tokenizer is of another kind or incomplete
 */
export function tokenizerFromGguf(metadata: ReadonlyMap<string, GgufValue>, contextLength: number): TokenizerFiles {
  const parsed = ggufTokenizerSchema.safeParse(Object.fromEntries(metadata));
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new TunefleetError('incompatible_artifact', `the GGUF tokenizer cannot be used: ${issue?.path.join('.')}: ${issue?.message}`, { reason: 'unsupported_tokenizer' });
  }
  const fields = parsed.data;
  const preTokenizer = PRE_TOKENIZERS[fields['tokenizer.ggml.pre']];
  if (preTokenizer === undefined) {
    throw new TunefleetError('incompatible_artifact', `the GGUF tokenizer splits text the way "${fields['tokenizer.ggml.pre']}" does; known are ${Object.keys(PRE_TOKENIZERS).join(', ')}`, { reason: 'unsupported_tokenizer' });
  }
  const tokens = fields['tokenizer.ggml.tokens'];
  const types = fields['tokenizer.ggml.token_type'];
  const added = tokens.flatMap((content, id) => (types[id] === CONTROL || types[id] === USER_DEFINED ? [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: types[id] === CONTROL }] : []));
  const name = (id: number | undefined): string | null => (id === undefined ? null : (tokens[id] ?? null));
  const bos = fields['tokenizer.ggml.bos_token_id'];
  const eos = fields['tokenizer.ggml.eos_token_id'];
  const pad = fields['tokenizer.ggml.padding_token_id'] ?? eos;
  const tokenizer = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: preTokenizer,
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((content, id) => [content, id])),
      merges: fields['tokenizer.ggml.merges'].map((merge) => merge.split(' ')),
    },
  };
  const template = fields['tokenizer.chat_template'];
  const tokenizerConfig = {
    // The generic class: it takes tokenizer.json as it is, while the named ones may rebuild parts of it.
    tokenizer_class: 'PreTrainedTokenizerFast',
    add_prefix_space: false,
    clean_up_tokenization_spaces: false,
    model_max_length: contextLength,
    bos_token: name(bos),
    eos_token: name(eos),
    pad_token: name(pad),
    unk_token: name(fields['tokenizer.ggml.unknown_token_id']),
    ...(template === undefined ? {} : { chat_template: template }),
  };
  return { tokenizer, tokenizerConfig, specialIds: { bos: bos ?? null, eos: eos ?? null, pad: pad ?? null } };
}
