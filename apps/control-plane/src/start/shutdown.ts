import { errorMessage, type Logger } from '@tunefleet/foundation';

interface Step {
  readonly name: string;
  readonly stop: () => Promise<void>;
  readonly limitMs: number;
}

/** Things to stop, the last opened first. One that fails or hangs does not keep the others from being stopped. */
export class Shutdown {
  private readonly steps: Step[] = [];
  private running: Promise<void> | null = null;

  constructor(private readonly logger: Logger) {}

  get isRunning(): boolean {
    return this.running !== null;
  }

  /** @param limitMs how long its stop may take before the next one is stopped */
  add(name: string, limitMs: number, stop: () => Promise<void>): void {
    this.steps.push({ name, stop, limitMs });
  }

  /** Once; later calls wait for the same end. */
  run(): Promise<void> {
    return (this.running ??= this.stopAll());
  }

  private async stopAll(): Promise<void> {
    for (const step of this.steps.reverse()) await this.stopOne(step);
  }

  private async stopOne({ name, stop, limitMs }: Step): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(() => resolve('late'), limitMs);
    });
    try {
      if ((await Promise.race([stop(), late])) === 'late') this.logger.warn({ part: name, limitMs }, 'did not stop in time, going on without it');
    } catch (error) {
      this.logger.warn({ part: name, reason: errorMessage(error) }, 'did not stop cleanly');
    } finally {
      clearTimeout(timer);
    }
  }
}
