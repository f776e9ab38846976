/** Tells what happens, as it happens, to whoever watches. */
export class Log {
  private readonly startedAt = performance.now();

  constructor(private readonly write: (line: string) => void) {}

  say(kind: 'fault' | 'healed' | 'job' | 'user' | 'run', text: string): void {
    this.write(`${this.seconds.toFixed(1).padStart(7)} s  ${kind.padEnd(6)}  ${text}`);
  }

  /** Without a time. */
  print(text: string): void {
    this.write(text);
  }

  get seconds(): number {
    return (performance.now() - this.startedAt) / 1000;
  }
}
