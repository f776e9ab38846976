import { TunefleetError } from './errors';

/** What `waited` gives; it goes on by itself when the signal aborts first. @throws TunefleetError `cancelled` with the message then; what `waited` rejects with */
export async function orAborted<T>(waited: Promise<T>, signal: AbortSignal | undefined, message: string): Promise<T> {
  if (signal === undefined) return waited;
  let abort = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(new TunefleetError('cancelled', message));
  });
  if (signal.aborted) abort();
  signal.addEventListener('abort', abort, { once: true });
  try {
    return await Promise.race([waited, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
