import type { DatasetRow } from '@tunefleet/domain-datasets';
import { TunefleetError } from '@tunefleet/foundation';
import { renderCompletion, renderConversation, type RenderedTokens, type TextTokenizer } from '@tunefleet/ml-tokenizers';

/** A row with one label in the place of its answer. */
export interface LabelSequence {
  /** [T] the prompt, the label and the token that ends the turn. */
  readonly ids: Int32Array;
  /** First token of the label. */
  readonly answerStart: number;
}

/**
 * What is scored for each label: exactly the tokens on which training would put its loss if the label were the row's last assistant turn (or
 * completion), the token that ends the turn among them. So the score of the right label is minus the row's summed training loss.
 * @throws TunefleetError `invalid_input` when the chat template refuses the row, or two labels have the same tokens
 */
export function labelSequences(tokenizer: TextTokenizer, row: DatasetRow, labels: readonly string[]): LabelSequence[] {
  const sequences = labels.map((label) => answerOf(renderAnswer(tokenizer, row, label)));
  for (const [index, { ids }] of sequences.entries()) {
    const twin = sequences.findIndex((other) => Buffer.from(other.ids.buffer).equals(Buffer.from(ids.buffer)));
    if (twin < index) {
      throw new TunefleetError('invalid_input', `labels ${JSON.stringify(labels[twin])} and ${JSON.stringify(labels[index])} are the same tokens for this model; name them apart`, { reason: 'labels_not_distinct', param: 'metric.labels' });
    }
  }
  return sequences;
}

function renderAnswer(tokenizer: TextTokenizer, row: DatasetRow, answer: string): RenderedTokens {
  if (row.format === 'completion') return renderCompletion(tokenizer, row.prompt, answer);
  const before = row.messages.slice(0, -1).map((message) => (message.role === 'assistant' ? { ...message, weight: 0 } : message));
  return renderConversation(tokenizer, [...before, { role: 'assistant', content: answer }], { tools: row.tools });
}

/** The sequence up to its last learned token; line breaks of the template after it are left out. */
function answerOf({ inputIds, labels }: RenderedTokens): LabelSequence {
  const answerStart = labels.findIndex((label) => label >= 0);
  const end = labels.findLastIndex((label) => label >= 0) + 1;
  return { ids: inputIds.slice(0, end), answerStart: Math.max(1, answerStart) };
}
