import { Environment, Interpreter, parse, tokenize } from '@huggingface/jinja';
import { TunefleetError, errorMessage } from '@tunefleet/foundation';

const TEMPLATE_LENGTH_MAX = 1_000_000;
const OUTPUT_LENGTH_MAX = 64 * 1024 * 1024;
/** Items all `range` calls of one rendering may yield: templates come from model folders and must not be able to loop for ever. */
const RANGE_ITEMS_MAX = 100_000;

export interface ChatMessage {
  readonly role: string;
  readonly content?: string | null | undefined;
  readonly [field: string]: unknown;
}

export interface RenderOptions {
  /** Add what makes the model answer as the assistant. */
  readonly addGenerationPrompt?: boolean;
  readonly tools?: readonly unknown[] | undefined;
  /** What `strftime_now` says. Fixed by default, so that the same file gives the same tokens on any day. */
  readonly now?: Date;
}

export interface TemplateTokens {
  readonly bosToken: string;
  readonly eosToken: string;
}

const FIXED_DATE = new Date('2024-07-26T00:00:00Z');

/** A compiled Jinja chat template with the functions Transformers gives to templates. */
export class ChatTemplate {
  readonly #program: ReturnType<typeof parse>;
  readonly #tokens: TemplateTokens;

  /** @throws TunefleetError `incompatible_artifact` when it does not parse */
  constructor(source: string, tokens: TemplateTokens) {
    if (source.length > TEMPLATE_LENGTH_MAX) throw incompatible(`the chat template has ${source.length} characters; the limit is ${TEMPLATE_LENGTH_MAX}`);
    try {
      this.#program = parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
    } catch (error) {
      throw incompatible(`the chat template does not parse: ${errorMessage(error)}`, error);
    }
    this.#tokens = tokens;
  }

  /** @throws TunefleetError `invalid_input` when the template refuses the conversation (its own message is passed on) */
  render(messages: readonly ChatMessage[], options: RenderOptions = {}): string {
    const environment = new Environment();
    for (const [name, value] of Object.entries(this.#globals(messages, options))) environment.set(name, value);
    let text: unknown;
    try {
      text = (new Interpreter(environment).run(this.#program) as { value: unknown }).value;
    } catch (error) {
      throw new TunefleetError('invalid_input', `the model's chat template refuses this conversation: ${errorMessage(error)}`, { reason: 'chat_template_refused', cause: error });
    }
    if (typeof text !== 'string' || text.length > OUTPUT_LENGTH_MAX) throw incompatible(`the chat template gave more than ${OUTPUT_LENGTH_MAX} characters`);
    return text;
  }

  #globals(messages: readonly ChatMessage[], { addGenerationPrompt = false, tools, now = FIXED_DATE }: RenderOptions): Record<string, unknown> {
    return {
      ...CONSTANTS,
      range: boundedRange(),
      strftime_now: (format: string) => formatDate(now, format),
      messages,
      tools: tools ?? null,
      documents: null,
      add_generation_prompt: addGenerationPrompt,
      bos_token: this.#tokens.bosToken,
      eos_token: this.#tokens.eosToken,
    };
  }
}

const CONSTANTS = {
  true: true,
  True: true,
  false: false,
  False: false,
  none: null,
  None: null,
  raise_exception: (message: string): never => {
    throw new Error(message);
  },
};

/** Python's `range`, with a budget over all calls. */
function boundedRange(): (start: number, stop?: number, step?: number) => number[] {
  let budget = RANGE_ITEMS_MAX;
  return (start, stop, step = 1) => {
    const [first, last] = stop === undefined ? [0, start] : [start, stop];
    if (step === 0) throw new Error('range() step must not be zero');
    const length = Math.max(0, Math.ceil((last - first) / step));
    budget -= length;
    if (budget < 0) throw new Error(`range() gave more than ${RANGE_ITEMS_MAX} items`);
    return Array.from({ length }, (_, index) => first + index * step);
  };
}

/** The directives of strftime that chat templates use, in UTC and English. */
function formatDate(date: Date, format: string): string {
  const two = (value: number): string => String(value).padStart(2, '0');
  const name = (options: Intl.DateTimeFormatOptions): string => new Intl.DateTimeFormat('en-US', { ...options, timeZone: 'UTC' }).format(date);
  const directives: Readonly<Record<string, () => string>> = {
    Y: () => String(date.getUTCFullYear()),
    y: () => two(date.getUTCFullYear() % 100),
    m: () => two(date.getUTCMonth() + 1),
    d: () => two(date.getUTCDate()),
    H: () => two(date.getUTCHours()),
    M: () => two(date.getUTCMinutes()),
    S: () => two(date.getUTCSeconds()),
    b: () => name({ month: 'short' }),
    B: () => name({ month: 'long' }),
    a: () => name({ weekday: 'short' }),
    A: () => name({ weekday: 'long' }),
    '%': () => '%',
  };
  return format.replace(/%(.)/g, (whole, letter: string) => directives[letter]?.() ?? whole);
}

function incompatible(message: string, cause?: unknown): TunefleetError {
  return new TunefleetError('incompatible_artifact', message, { reason: 'bad_chat_template', cause });
}
