import { silentLogger } from '@tunefleet/foundation';
import { descendants, isAlive, until } from '@tunefleet/testing';
import { ManagedChild } from '../../../cli/src/supervisor/managed-child';

export interface PartOptions {
  readonly name: string;
  /** The bundle it runs. */
  readonly file: string;
  readonly env: NodeJS.ProcessEnv;
  readonly logFile: string;
  readonly stopGraceMs: number;
}

/** Never given up: while the database is away, a replica may fail to start again and again. */
const RESTART = { firstDelayMs: 250, maxDelayMs: 2_000, healthyAfterMs: 10_000, maxFailedStarts: 1_000 };
const READY_MS = 120_000;

/** A process of the product under the product's own supervisor, which starts it again when it dies by itself. */
export class Part {
  private child: ManagedChild | null = null;
  private ready = false;
  /** How often it ended by itself after it had been ready: nothing that happens to its surroundings may do that. */
  deaths = 0;

  constructor(private readonly options: PartOptions) {}

  get name(): string {
    return this.options.name;
  }

  get pid(): number | undefined {
    return this.child?.pid;
  }

  /** Since it was started last. */
  get isReady(): boolean {
    return this.ready && this.pid !== undefined;
  }

  begin(): void {
    const { name, file, env, logFile, stopGraceMs } = this.options;
    this.ready = false;
    this.child = new ManagedChild(
      {
        ...{ name, file, logFile, stopGraceMs },
        env: () => {
          if (this.ready) this.deaths++;
          this.ready = false;
          return env;
        },
        onReady: () => (this.ready = true),
      },
      RESTART,
      silentLogger,
      () => undefined,
    );
    this.child.start();
  }

  untilReady(): Promise<void> {
    return until(`${this.name} to be ready`, () => this.isReady, { timeoutMs: READY_MS, detail: () => `see ${this.options.logFile}` });
  }

  /** The hard way, with all it started; `begin` starts it again. */
  async crash(): Promise<void> {
    const pid = this.pid;
    this.child?.kill();
    if (pid !== undefined) await until(`${this.name} to be gone`, () => !isAlive(pid) && this.pid !== pid);
  }

  /** As an operator would. */
  async stop(): Promise<void> {
    await this.child?.stop();
  }

  /** Of the processes it started itself. */
  async below(program: string): Promise<number[]> {
    return this.pid === undefined ? [] : (await descendants(this.pid)).filter((each) => each.program === program).map(({ pid }) => pid);
  }
}
