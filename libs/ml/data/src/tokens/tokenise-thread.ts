/** The program of a tokeniser thread. */
import { parentPort, workerData } from 'node:worker_threads';
import { invariant, isTunefleetError } from '@tunefleet/foundation';
import type { Line } from '@tunefleet/domain-datasets';
import { TextTokenizer } from '@tunefleet/ml-tokenizers';
import { tokeniseLines } from './tokenise-lines';
import type { ThreadAnswer, ThreadData } from './tokeniser-threads';

invariant(parentPort, 'this program runs in a thread');
const port = parentPort;
const { sources, options } = workerData as ThreadData;
const tokenizer = new TextTokenizer(sources);

port.on('message', (lines: readonly Line[]) => {
  const answer = answerTo(lines);
  port.postMessage(answer, 'done' in answer ? Object.values(answer.done.packed).map(({ buffer }: { readonly buffer: ArrayBuffer }) => buffer) : []);
});

function answerTo(lines: readonly Line[]): ThreadAnswer {
  try {
    return { done: tokeniseLines(tokenizer, lines, options) };
  } catch (error) {
    if (!isTunefleetError(error)) throw error;
    const { code, message, reason, param, details } = error;
    return { failed: { code, message, reason, param, details } };
  }
}
