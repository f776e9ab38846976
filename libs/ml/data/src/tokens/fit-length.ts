import { TunefleetError } from '@tunefleet/foundation';
import { IGNORED_LABEL, type TokenisedExample } from '../tokenised-dataset';

/** What to do with a row that has more tokens than the model is to see. */
export type OverLongPolicy = 'error' | 'truncate-context';

/**
 * Makes an example fit. `truncate-context` drops the oldest tokens (a BOS token stays) so that the answer and the context next to it remain;
 * where the last answer alone is too long, its end is cut.
 * @throws TunefleetError `invalid_input` with row, length and limit under the policy `error`
 */
export function fitLength(example: TokenisedExample, { maxLength, policy, bos, row, param = 'training_file' }: { readonly maxLength: number; readonly policy: OverLongPolicy; readonly bos: number | null; readonly row: number; readonly param?: string }): TokenisedExample {
  const { inputIds, labels } = example;
  if (inputIds.length <= maxLength) return example;
  if (policy === 'error') {
    throw new TunefleetError('invalid_input', `${param}: row ${row} has ${inputIds.length} tokens, more than the maximum sequence length ${maxLength}; shorten the row, raise the maximum sequence length, or allow truncation`, {
      reason: 'row_too_long',
      param,
      details: { row, tokens: inputIds.length, limit: maxLength },
    });
  }
  let end = labels.length;
  while (end > 0 && labels[end - 1] === IGNORED_LABEL) end -= 1;
  let answerStart = end;
  while (answerStart > 0 && labels[answerStart - 1] !== IGNORED_LABEL) answerStart -= 1;
  const keepBos = inputIds[0] === bos && bos !== null ? 1 : 0;
  const room = maxLength - keepBos;
  // At least a quarter of the room stays for the context, else the model would learn an answer to nothing.
  const contextLength = Math.min(answerStart - keepBos, Math.max(room - (end - answerStart), Math.floor(room / 4)));
  const start = answerStart - contextLength;
  const cut = (array: Int32Array): Int32Array => {
    const out = new Int32Array(keepBos + Math.min(room, end - start));
    if (keepBos === 1) out[0] = array[0] as number;
    out.set(array.subarray(start, start + out.length - keepBos), keepBos);
    return out;
  };
  return { inputIds: cut(inputIds), labels: cut(labels) };
}
