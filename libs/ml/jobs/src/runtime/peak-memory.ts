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

/** A high-water mark of which there is one. */
export interface PeakCounter {
  /** Bytes, since the last reset. */
  read(): number;
  reset(): void;
}

/** Gives runs that overlap in time a peak each, of one counter. */
export class PeakMemory {
  readonly #open = new Set<PeakSince>();

  constructor(private readonly counter: PeakCounter) {}

  /** From now on, until it is disposed. */
  start(): PeakSince {
    const bytes = this.counter.read();
    for (const other of this.#open) other.note(bytes);
    this.counter.reset();
    const peak = new PeakSince(this.counter, (ended) => this.#open.delete(ended), this.#open.size > 0);
    this.#open.add(peak);
    return peak;
  }
}

export class PeakSince implements Disposable {
  #highest = 0;

  constructor(
    private readonly counter: PeakCounter,
    private readonly end: (peak: PeakSince) => void,
    private hasCompany: boolean,
  ) {}

  get bytes(): number {
    return Math.max(this.#highest, this.counter.read());
  }

  /** Others were measured at the same time: the peak is that of all together. */
  get isShared(): boolean {
    return this.hasCompany;
  }

  /** Another one starts. @param bytes up to there */
  note(bytes: number): void {
    this.#highest = Math.max(this.#highest, bytes);
    this.hasCompany = true;
  }

  [Symbol.dispose](): void {
    this.end(this);
  }
}
