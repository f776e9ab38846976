import { existsSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { TunefleetError, errorMessage, sha256Hex } from '@tunefleet/foundation';
import { ChatTemplate } from './chat-template';
import { isByteLevel, isRecord, portableTokenizer } from './portable-tokenizer';
import { StreamDecoder } from './stream-decoder';

const FILE_BYTES_MAX = 256 * 1024 * 1024;

export interface SpecialTokens {
  readonly bos: number | null;
  readonly eos: number | null;
  readonly pad: number | null;
}

export interface TokenizerSources {
  /** Text of `tokenizer.json`. */
  readonly tokenizer: string;
  /** Text of `tokenizer_config.json`. */
  readonly config: string;
  /** Text of `chat_template.jinja`, which wins over the template in the configuration. */
  readonly chatTemplate?: string | undefined;
}

/** A model's tokenizer with its chat template. Same ids as the reference library for the same files. */
export class TextTokenizer {
  /** What it was made from, for another of the same in another thread. */
  readonly sources: TokenizerSources;
  /** Hash of all files it was made from. */
  readonly fingerprint: string;
  readonly special: SpecialTokens;
  /** Ids of added tokens marked special (`<|im_end|>` and the like). */
  readonly specialIds: ReadonlySet<number>;
  /** Number of ids, added tokens included; the model's embedding may have more rows. */
  readonly vocabularySize: number;
  readonly chatTemplate: ChatTemplate | null;
  /** True when texts may be encoded in pieces. */
  readonly byteLevel: boolean;
  readonly #tokenizer: Tokenizer;

  /** @throws TunefleetError `incompatible_artifact` when the files are damaged or of a kind that is not supported */
  constructor(sources: TokenizerSources) {
    const { tokenizer, config, chatTemplate } = sources;
    this.sources = sources;
    this.fingerprint = sha256Hex(JSON.stringify([sha256Hex(tokenizer), sha256Hex(config), chatTemplate ?? null]));
    const model = parseObject(tokenizer, 'tokenizer.json');
    const settings = parseObject(config, 'tokenizer_config.json');
    try {
      this.#tokenizer = new Tokenizer(portableTokenizer(model), { clean_up_tokenization_spaces: false, ...settings });
    } catch (error) {
      throw incompatible(`tokenizer.json cannot be used: ${errorMessage(error)}`, error);
    }
    this.byteLevel = isByteLevel(model);
    const added = [...this.#tokenizer.get_added_tokens_decoder().values()];
    this.specialIds = new Set(added.filter(({ special }) => special).map(({ id }) => id));
    this.vocabularySize = Math.max(...this.#tokenizer.get_vocab(true).values(), ...added.map(({ id }) => id)) + 1;
    const text = (name: string): string | null => tokenText(settings[name]);
    const id = (name: string): number | null => this.#idOf(text(name));
    this.special = { bos: id('bos_token'), eos: id('eos_token'), pad: id('pad_token') };
    const template = chatTemplate ?? defaultTemplate(settings['chat_template']);
    this.chatTemplate = template === null ? null : new ChatTemplate(template, { bosToken: text('bos_token') ?? '', eosToken: text('eos_token') ?? '' });
  }

  /** Loads `tokenizer.json`, `tokenizer_config.json` and, where present, `chat_template.jinja` of a model folder. */
  static async load(folder: string): Promise<TextTokenizer> {
    const template = join(folder, 'chat_template.jinja');
    return new TextTokenizer({
      tokenizer: await readBounded(join(folder, 'tokenizer.json')),
      config: existsSync(join(folder, 'tokenizer_config.json')) ? await readBounded(join(folder, 'tokenizer_config.json')) : '{}',
      chatTemplate: existsSync(template) ? await readBounded(template) : undefined,
    });
  }

  /** @param options.addSpecialTokens let the tokenizer add BOS/EOS as its post-processor says; default false */
  encode(text: string, options: { readonly addSpecialTokens?: boolean } = {}): Int32Array {
    if (text === '') return options.addSpecialTokens ? Int32Array.from(this.#tokenizer.encode('').ids) : new Int32Array(0);
    return Int32Array.from(this.#tokenizer.encode(text, { add_special_tokens: options.addSpecialTokens ?? false }).ids);
  }

  /** @param options.skipSpecialTokens leave out `<|im_end|>` and the like; default false */
  decode(ids: ArrayLike<number>, options: { readonly skipSpecialTokens?: boolean } = {}): string {
    if (ids.length === 0) return '';
    return this.#tokenizer.decode(Array.from(ids), { skip_special_tokens: options.skipSpecialTokens ?? false });
  }

  /** Decodes ids one by one as they are generated, holding back incomplete characters. */
  streamDecoder(options: { readonly skipSpecialTokens?: boolean } = {}): StreamDecoder {
    return new StreamDecoder((ids) => this.decode(ids, options));
  }

  tokenId(token: string): number | undefined {
    return this.#tokenizer.token_to_id(token);
  }

  #idOf(token: string | null): number | null {
    return token === null ? null : (this.#tokenizer.token_to_id(token) ?? null);
  }
}

/** A token is written as its text or as an object with `content`. */
function tokenText(value: unknown): string | null {
  if (typeof value === 'string') return value;
  return isRecord(value) && typeof value['content'] === 'string' ? value['content'] : null;
}

/** `chat_template` is a text, or a list of named texts of which `default` is meant. */
function defaultTemplate(value: unknown): string | null {
  if (typeof value === 'string') return value;
  if (!Array.isArray(value)) return null;
  const entry = value.filter(isRecord).find(({ name }) => name === 'default');
  return typeof entry?.['template'] === 'string' ? entry['template'] : null;
}

async function readBounded(path: string): Promise<string> {
  if (!existsSync(path)) throw incompatible(`${path} is missing; the model needs a fast tokenizer (tokenizer.json)`);
  const { size } = statSync(path);
  if (size > FILE_BYTES_MAX) throw incompatible(`${path} has ${size} bytes; the limit is ${FILE_BYTES_MAX}`);
  return readFile(path, 'utf8');
}

function parseObject(text: string, file: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw incompatible(`${file} is not JSON: ${errorMessage(error)}`, error);
  }
  if (!isRecord(value)) throw incompatible(`${file} is not a JSON object`);
  return value;
}

function incompatible(message: string, cause?: unknown): TunefleetError {
  return new TunefleetError('incompatible_artifact', message, { reason: 'bad_tokenizer', cause });
}
