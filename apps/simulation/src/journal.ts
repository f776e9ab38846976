interface Entry {
  readonly atMs: number;
  readonly text: () => string;
}

/** The last things that happened, to be read when a rule is broken. */
export class Journal {
  private readonly entries: Entry[] = [];
  private count = 0;

  constructor(
    private readonly nowMs: () => number,
    private readonly size = 50,
  ) {}

  note(text: () => string): void {
    this.entries[this.count++ % this.size] = { atMs: this.nowMs(), text };
  }

  /** Oldest first. */
  lines(startMs: number): string[] {
    const first = this.count % this.entries.length || 0;
    return [...this.entries.slice(first), ...this.entries.slice(0, first)].map(({ atMs, text }) => `${timeText(atMs - startMs)}  ${text()}`);
  }

  get total(): number {
    return this.count;
  }
}

export function timeText(ms: number): string {
  const seconds = ms / 1000;
  const pad = (value: number): string => String(value).padStart(2, '0');
  return `${pad(Math.floor(seconds / 3600))}:${pad(Math.floor(seconds / 60) % 60)}:${(seconds % 60).toFixed(3).padStart(6, '0')}`;
}
