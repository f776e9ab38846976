import { TunefleetError } from '@tunefleet/foundation';

const SPECIAL = ['<unk>', '<s>', '</s>'] as const;
const BYTE_PIECE = /^<0x[0-9A-F]{2}>$/;
/** SentencePiece's sign for a blank. */
const BLANK = '\u2581';

/**
 * Turns a llama2.c tokenizer file (int32 longest piece, then per piece float32 score, int32 length, bytes) into Hugging Face files:
 * BPE with byte fallback. SentencePiece joins the pair whose result has the highest score, so each way to make a piece out of two becomes
 * a merge, in the order of scores.
 */
export function tokenizerFromLlama2c(file: Uint8Array, vocabularySize: number, contextLength: number): { readonly tokenizer: object; readonly tokenizerConfig: object } {
  const pieces = readPieces(file, vocabularySize);
  const vocabulary = new Map(pieces.map(({ text }, id) => [text, id]));
  const merges = pieces
    .flatMap(({ text, score }, id) => (id < SPECIAL.length || BYTE_PIECE.test(text) ? [] : splits(text, vocabulary).map((pair) => ({ pair, score, id }))))
    .sort((a, b) => b.score - a.score || a.id - b.id)
    .map(({ pair }) => pair);
  const special = SPECIAL.map((content, id) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }));
  const tokenizer = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: special,
    normalizer: { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: BLANK }, { type: 'Replace', pattern: { String: ' ' }, content: BLANK }] },
    pre_tokenizer: null,
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
      special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
    },
    decoder: { type: 'Sequence', decoders: [{ type: 'Replace', pattern: { String: BLANK }, content: ' ' }, { type: 'ByteFallback' }, { type: 'Fuse' }, { type: 'Strip', content: ' ', start: 1, stop: 0 }] },
    model: { type: 'BPE', dropout: null, unk_token: '<unk>', continuing_subword_prefix: null, end_of_word_suffix: null, fuse_unk: true, byte_fallback: true, ignore_merges: false, vocab: Object.fromEntries(vocabulary), merges },
  };
  const tokenizerConfig = { tokenizer_class: 'PreTrainedTokenizerFast', clean_up_tokenization_spaces: false, model_max_length: contextLength, bos_token: '<s>', eos_token: '</s>', unk_token: '<unk>' };
  return { tokenizer, tokenizerConfig };
}

function readPieces(file: Uint8Array, count: number): { text: string; score: number }[] {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  let position = 4;
  const pieces = Array.from({ length: count }, (_, id) => {
    if (position + 8 > file.length) throw damaged(`ends inside piece ${id} of ${count}`);
    const score = view.getFloat32(position, true);
    const length = view.getInt32(position + 4, true);
    position += 8;
    if (length < 0 || position + length > file.length) throw damaged(`gives piece ${id} a length of ${length}`);
    const text = new TextDecoder().decode(file.subarray(position, position + length)).replaceAll(' ', BLANK);
    position += length;
    return { text: SPECIAL[id] ?? text, score };
  });
  if (position !== file.length) throw damaged(`has ${file.length - position} bytes after piece ${count}`);
  return pieces;
}

/** All ways to cut a piece into two pieces of the vocabulary, by characters. */
function splits(text: string, vocabulary: ReadonlyMap<string, number>): [string, string][] {
  const characters = [...text];
  return characters.slice(1).flatMap((_, index): [string, string][] => {
    const pair: [string, string] = [characters.slice(0, index + 1).join(''), characters.slice(index + 1).join('')];
    return pair.every((part) => vocabulary.has(part)) ? [pair] : [];
  });
}

function damaged(what: string): TunefleetError {
  return new TunefleetError('incompatible_artifact', `the llama2.c tokenizer ${what}`);
}
