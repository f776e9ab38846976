export interface Timer {
  /** It does not call any more. May be said twice. */
  cancel(): void;
}

/** Who calls back later. With a clock, all that code needs of time, so that a simulation can own both. */
export interface Timers {
  /** Once. */
  after(ms: number, run: () => void): Timer;
  /** Again and again, first after `ms`. */
  every(ms: number, run: () => void): Timer;
}

export const systemTimers: Timers = {
  after: (ms, run) => {
    const timer = setTimeout(run, ms);
    return { cancel: () => clearTimeout(timer) };
  },
  every: (ms, run) => {
    const timer = setInterval(run, ms);
    return { cancel: () => clearInterval(timer) };
  },
};

/** Resolves after `ms`, or at once when the signal aborts (it does not reject). The timer never keeps the process alive on abort. */
export function sleep(ms: number, signal?: AbortSignal, timers: Timers = systemTimers): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const finish = (): void => {
      timer.cancel();
      signal?.removeEventListener('abort', finish);
      resolve();
    };
    const timer = timers.after(ms, finish);
    signal?.addEventListener('abort', finish, { once: true });
  });
}
