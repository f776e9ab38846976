import { TunefleetError } from '@tunefleet/foundation';
import type { ChatMessage, ChatTemplate, RenderOptions } from './chat-template';
import type { TextTokenizer } from './text-tokenizer';

/** A token without loss, as in Hugging Face. */
const IGNORED = -100;

export interface RenderedTokens {
  /** [T] */
  readonly inputIds: Int32Array;
  /** [T] the id where the token carries loss, else -100; not shifted. */
  readonly labels: Int32Array;
}

type Options = Pick<RenderOptions, 'tools' | 'now'>;

/** A stretch of the rendered text. */
interface Segment {
  readonly text: string;
  readonly learned: boolean;
}

/**
 * Renders a conversation and marks what is learned: every assistant turn (unless its `weight` is 0) with the token that ends it,
 * nothing of the prompt, the role headers or the line break after the end token.
 *
 * Method: the conversation up to each assistant turn is rendered with the generation prompt, and up to and including it without;
 * both must be beginnings of the whole text, which proves where the turn's own text lies whatever the template does.
 * With byte-level tokenizers the stretches are encoded separately, so training sees the same border as generation does.
 * @throws TunefleetError `incompatible_artifact` without a template, `invalid_input` when the template changes earlier turns or refuses
 */
export function renderConversation(tokenizer: TextTokenizer, messages: readonly ChatMessage[], options: Options = {}): RenderedTokens {
  const segments = splitByTurn(templateOf(tokenizer), messages.map(withoutWeight), messages, options);
  return tokenizer.byteLevel ? encodeSegments(tokenizer, segments) : encodeWhole(tokenizer, segments);
}

/** Ids of a conversation that the assistant is to answer. */
export function renderPrompt(tokenizer: TextTokenizer, messages: readonly ChatMessage[], options: Options = {}): Int32Array {
  return tokenizer.encode(templateOf(tokenizer).render(messages.map(withoutWeight), { ...options, addGenerationPrompt: true }));
}

/** A prompt/completion row: BOS where the tokenizer adds one, the prompt without loss, the completion and EOS with loss. */
export function renderCompletion(tokenizer: TextTokenizer, prompt: string, completion: string): RenderedTokens {
  const head = tokenizer.encode(prompt, { addSpecialTokens: true });
  const eos = tokenizer.special.eos;
  const promptIds = eos !== null && head.at(-1) === eos ? head.subarray(0, -1) : head;
  if (tokenizer.byteLevel) {
    const answer = tokenizer.encode(completion);
    return joinParts([
      { ids: promptIds, learnedUntil: 0 },
      { ids: eos === null ? answer : Int32Array.from([...answer, eos]), learnedUntil: Infinity },
    ]);
  }
  const whole = tokenizer.encode(prompt + completion, { addSpecialTokens: true });
  const ids = eos === null || whole.at(-1) === eos ? whole : Int32Array.from([...whole, eos]);
  const start = commonLength(promptIds, ids);
  return { inputIds: ids, labels: ids.map((id, index) => (index < start ? IGNORED : id)) };
}

function templateOf(tokenizer: TextTokenizer): ChatTemplate {
  if (tokenizer.chatTemplate === null) {
    throw new TunefleetError('incompatible_artifact', 'the model has no chat template; use prompt/completion rows, or a model tuned for chat', { reason: 'no_chat_template' });
  }
  return tokenizer.chatTemplate;
}

function withoutWeight(message: ChatMessage): ChatMessage {
  const { weight: _weight, ...rest } = message;
  return rest as ChatMessage;
}

function splitByTurn(template: ChatTemplate, messages: readonly ChatMessage[], original: readonly ChatMessage[], options: Options): Segment[] {
  const whole = template.render(messages, options);
  const segments: Segment[] = [];
  let position = 0;
  for (const [index, message] of messages.entries()) {
    if (message.role !== 'assistant') continue;
    const before = index === 0 ? 0 : prefixLength(whole, template.render(messages.slice(0, index), { ...options, addGenerationPrompt: true }), index);
    const after = prefixLength(whole, template.render(messages.slice(0, index + 1), options), index);
    if (before < position || after < before) throw unstable(index);
    segments.push({ text: whole.slice(position, before), learned: false }, { text: whole.slice(before, after), learned: original[index]?.['weight'] !== 0 });
    position = after;
  }
  segments.push({ text: whole.slice(position), learned: false });
  return segments.filter(({ text }) => text !== '');
}

function prefixLength(whole: string, part: string, index: number): number {
  if (!whole.startsWith(part)) throw unstable(index);
  return part.length;
}

function unstable(index: number): TunefleetError {
  return new TunefleetError(
    'invalid_input',
    `messages[${index}]: the model's chat template rewrites earlier turns once the conversation goes on, so what the assistant wrote there cannot be marked for learning; split the row so that each ends with the turn to learn, or keep earlier assistant turns free of reasoning blocks and tool calls`,
    { reason: 'chat_template_not_incremental', details: { message: index } },
  );
}

function encodeSegments(tokenizer: TextTokenizer, segments: readonly Segment[]): RenderedTokens {
  return joinParts(
    segments.map(({ text, learned }) => {
      const ids = tokenizer.encode(text);
      return { ids, learnedUntil: learned ? endOfTurn(tokenizer, ids) : 0 };
    }),
  );
}

/** For tokenizers that treat the start of a text specially: encode once, find the borders as common beginnings. A token across a border counts as the answer's. */
function encodeWhole(tokenizer: TextTokenizer, segments: readonly Segment[]): RenderedTokens {
  const inputIds = tokenizer.encode(segments.map(({ text }) => text).join(''));
  const labels = new Int32Array(inputIds.length).fill(IGNORED);
  let text = '';
  let start = 0;
  for (const segment of segments) {
    text += segment.text;
    const end = commonLength(tokenizer.encode(text), inputIds);
    const ids = inputIds.subarray(start, end);
    if (segment.learned) labels.set(ids.subarray(0, endOfTurn(tokenizer, ids)), start);
    start = end;
  }
  return { inputIds, labels };
}

/** Tokens up to and including the last special one; all of them when the template ends turns without one. */
function endOfTurn(tokenizer: TextTokenizer, ids: Int32Array): number {
  for (let index = ids.length - 1; index >= 0; index--) if (tokenizer.specialIds.has(ids[index] as number)) return index + 1;
  return ids.length;
}

function joinParts(parts: readonly { readonly ids: Int32Array; readonly learnedUntil: number }[]): RenderedTokens {
  const length = parts.reduce((total, { ids }) => total + ids.length, 0);
  const inputIds = new Int32Array(length);
  const labels = new Int32Array(length).fill(IGNORED);
  let position = 0;
  for (const { ids, learnedUntil } of parts) {
    inputIds.set(ids, position);
    labels.set(ids.subarray(0, Math.min(learnedUntil, ids.length)), position);
    position += ids.length;
  }
  return { inputIds, labels };
}

function commonLength(a: Int32Array, b: Int32Array): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length += 1;
  return length;
}
