import { Worker } from 'node:worker_threads';
import { TunefleetError, type ErrorCode } from '@tunefleet/foundation';
import type { Line } from '@tunefleet/domain-datasets';
import type { TokenizerSources } from '@tunefleet/ml-tokenizers';
import type { LineOptions, TokenisedLines } from './tokenise-lines';

/** What a thread is started with. */
export interface ThreadData {
  readonly sources: TokenizerSources;
  readonly options: LineOptions;
}

/** A thread's answer to some lines. */
export type ThreadAnswer =
  | { readonly done: TokenisedLines }
  /** An error of ours, as far as it can be carried over. */
  | { readonly failed: { readonly code: ErrorCode; readonly message: string; readonly reason?: string | undefined; readonly param?: string | undefined; readonly details: Readonly<Record<string, unknown>> } };

/** Threads that tokenise lines; each has a tokenizer of its own. Work is dealt to them in turns: lines of a file are much alike. */
export class TokeniserThreads implements AsyncDisposable {
  readonly #threads: readonly { readonly worker: Worker; readonly waiting: { resolve(lines: TokenisedLines): void; reject(error: unknown): void }[] }[];
  #next = 0;

  /** @param script the built `tokenise-thread`   @param count threads, at least 1 */
  constructor(script: string, count: number, data: ThreadData) {
    this.#threads = Array.from({ length: count }, () => {
      const thread = { worker: new Worker(script, { workerData: data }), waiting: [] as { resolve(lines: TokenisedLines): void; reject(error: unknown): void }[] };
      thread.worker.on('message', (answer: ThreadAnswer) => {
        const asked = thread.waiting.shift();
        if ('done' in answer) return asked?.resolve(answer.done);
        const { code, message, ...facts } = answer.failed;
        asked?.reject(new TunefleetError(code, message, { details: facts.details, ...(facts.reason === undefined ? {} : { reason: facts.reason }), ...(facts.param === undefined ? {} : { param: facts.param }) }));
      });
      // Whatever else ends a thread is a fault of ours, not of the rows.
      const fail = (error: unknown): void => thread.waiting.splice(0).forEach(({ reject }) => reject(error));
      thread.worker.on('error', fail);
      thread.worker.on('exit', (code) => fail(new TunefleetError('invariant', `a tokeniser thread ended with ${code}`)));
      return thread;
    });
  }

  /** @throws what `tokeniseLines` throws */
  tokenise(lines: readonly Line[]): Promise<TokenisedLines> {
    const thread = this.#threads[this.#next++ % this.#threads.length];
    return new Promise((resolve, reject) => {
      thread?.waiting.push({ resolve, reject });
      thread?.worker.postMessage(lines);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#threads.map(({ worker }) => worker.terminate()));
  }
}
