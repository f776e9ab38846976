import { readFileSync } from 'node:fs';

/**
 * Processes that Linux has killed for lack of memory since it booted, on the whole machine; null where it does not say (other systems,
 * kernels before 4.13). A process that died of SIGKILL while this grew was most likely one of them.
 */
export function countOomKills(read: () => string = () => readFileSync('/proc/vmstat', 'utf8')): number | null {
  try {
    const count = /^oom_kill (\d+)$/m.exec(read())?.[1];
    return count === undefined ? null : Number(count);
  } catch {
    return null;
  }
}
