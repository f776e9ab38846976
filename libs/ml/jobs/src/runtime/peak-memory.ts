import { readFileSync, writeFileSync } from 'node:fs';

const KIBIBYTE = 1024;

/** Starts the peak anew, where the system can (Linux): an engine lives through many jobs, and each is to be charged with its own. */
export function resetPeakRss(): void {
  try {
    // See proc(5): 5 resets the high water mark of resident memory.
    writeFileSync('/proc/self/clear_refs', '5');
  } catch {
    // Elsewhere the peak is that of the process so far.
  }
}

/** Highest resident memory of this process since `resetPeakRss`, bytes; since its start where that does nothing. */
export function peakRssBytes(): number {
  try {
    const peak = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
    if (peak !== undefined) return Number(peak) * KIBIBYTE;
  } catch {
    // No /proc: not Linux.
  }
  return process.resourceUsage().maxRSS * KIBIBYTE;
}
