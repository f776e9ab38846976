/** At most so many in one statement; the rest goes into the next. */
const BATCH_MAX = 100;

/**
 * Makes one call of the calls that are begun in one turn of the event loop, so that what is asked for side by side costs one round trip.
 * @param all answers in the order of what was wanted
 */
export function batched<Args extends unknown[], Wanted, Answer>(all: (wanted: readonly Wanted[]) => Promise<readonly Answer[]>, wish: (...args: Args) => Wanted): (...args: Args) => Promise<Answer> {
  let waiting: { readonly wanted: Wanted; resolve(answer: Answer): void; reject(error: unknown): void }[] = [];
  const flush = (): void => {
    const batch = waiting;
    waiting = [];
    all(batch.map(({ wanted }) => wanted)).then(
      (answers) => batch.forEach(({ resolve }, index) => resolve(answers[index] as Answer)),
      (error: unknown) => batch.forEach(({ reject }) => reject(error)),
    );
  };
  return (...args) =>
    new Promise((resolve, reject) => {
      if (waiting.length >= BATCH_MAX) flush();
      waiting.push({ wanted: wish(...args), resolve, reject });
      if (waiting.length === 1) queueMicrotask(() => waiting.length > 0 && flush());
    });
}
