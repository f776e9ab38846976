import type { DatasetRow } from '@tunefleet/domain-datasets';
import { renderCompletion, renderPrompt, type TextTokenizer } from '@tunefleet/ml-tokenizers';

/** Ids after which the model is to write the row's answer. */
export function promptOf(tokenizer: TextTokenizer, row: DatasetRow): Int32Array {
  if (row.format === 'chat') return renderPrompt(tokenizer, row.messages.slice(0, -1), { tools: row.tools });
  const { inputIds, labels } = renderCompletion(tokenizer, row.prompt, row.completion);
  return inputIds.slice(0, labels.findIndex((label) => label >= 0));
}

/** Whether an answer is the reference, white space around both left out. */
export function matchesExactly(answer: string, reference: string, ignoreCase: boolean): boolean {
  const [a, b] = [answer.trim(), reference.trim()];
  return ignoreCase ? a.toLowerCase() === b.toLowerCase() : a === b;
}
