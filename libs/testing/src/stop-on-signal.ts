import { constants } from 'node:os';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * When this process is asked to end, `stop` is run once and the process ends as the signal would have ended it: servers that it has started would live on.
 * @returns takes it back
 */
export function stopOnSignal(stop: () => Promise<unknown>): () => void {
  let isStopping = false;
  const onSignal = (signal: (typeof SIGNALS)[number]): void => {
    if (isStopping) return;
    isStopping = true;
    const end = (): void => process.exit(128 + constants.signals[signal]);
    stop().then(end, end);
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  return () => {
    for (const signal of SIGNALS) process.removeListener(signal, onSignal);
  };
}
