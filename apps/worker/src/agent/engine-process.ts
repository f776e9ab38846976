import { fork, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { backoffDelayMs, type BackoffPolicy, type Logger } from '@tunefleet/foundation';
import { fromEngineSchema, type DeviceReport, type FromEngine, type ToEngine } from '../engine-protocol';
import { countOomKills } from './oom-kills';

export interface EngineExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The system killed a process for lack of memory while it ran, and it died of that signal. */
  readonly outOfMemory: boolean;
  /** Last lines it wrote. */
  readonly logTail: readonly string[];
  /** Crashes since the agent started, this one included. */
  readonly crashes: number;
}

export interface EngineProcessOptions {
  /** The engine's module file. */
  readonly file: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly restart: BackoffPolicy;
  readonly readyMs: number;
  readonly logger: Logger;
  readonly onReady: (device: DeviceReport, jobKinds: readonly string[]) => void;
  readonly onMessage: (message: FromEngine) => void;
  readonly onExit: (exit: EngineExit) => void;
}

const LOG_TAIL_LINES = 50;
const LOG_LINE_CHARS = 2_000;
/** A crash later than this after the ready message starts a new row of crashes. */
const STABLE_MS = 60_000;
const EXIT_MS = 3_000;

/**
 * Keeps one engine process running: starts it, restarts it with backoff when it dies, hands its checked messages on. The channel between
 * the two closes with either process, and the engine exits on that, so it never outlives a killed agent.
 */
export class EngineProcess {
  private child: ChildProcess | null = null;
  private ready = false;
  /** It is told to go, and takes nothing more. */
  private killed = false;
  private stopping = false;
  private crashes = 0;
  private crashesInRow = 0;
  private readyAt = 0;
  private oomKillsAtStart: number | null = null;
  private logTail: string[] = [];
  private restartTimer: NodeJS.Timeout | null = null;
  private readyTimer: NodeJS.Timeout | null = null;

  constructor(private readonly options: EngineProcessOptions) {}

  get isReady(): boolean {
    return this.ready && !this.killed;
  }

  get pid(): number | undefined {
    return this.child?.pid;
  }

  /** The last lines the engine wrote. */
  get recentLines(): readonly string[] {
    return this.logTail;
  }

  start(): void {
    this.logTail = [];
    this.killed = false;
    this.oomKillsAtStart = countOomKills();
    const child = fork(this.options.file, [], { env: { ...this.options.env }, serialization: 'json', stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
    this.child = child;
    this.readyTimer = setTimeout(() => {
      this.options.logger.error({ readyMs: this.options.readyMs }, 'the engine did not open its device in time');
      child.kill('SIGKILL');
    }, this.options.readyMs);
    this.follow(child.stdout);
    this.follow(child.stderr);
    child.on('message', (message) => this.receive(child, message));
    child.on('error', (error) => this.options.logger.error({ err: error }, 'engine process error'));
    child.on('exit', (code, signal) => this.exited(child, code, signal));
  }

  /** False when there is no engine to take it. */
  send(message: ToEngine): boolean {
    if (this.child === null || !this.child.connected) return false;
    // An error here means that the process is going; its exit tells the rest.
    this.child.send(message, (error) => {
      if (error !== null) this.options.logger.debug({ err: error }, 'a message did not reach the engine');
    });
    return true;
  }

  /** Ends the process now; it is started again unless `stop` was called. */
  kill(): void {
    this.killed = true;
    this.child?.kill('SIGKILL');
  }

  /** Asks the engine to exit and makes sure that it does. */
  async stop(): Promise<void> {
    this.stopping = true;
    if (this.restartTimer !== null) clearTimeout(this.restartTimer);
    const child = this.child;
    if (child === null) return;
    const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    this.send({ type: 'exit' });
    const force = setTimeout(() => child.kill('SIGKILL'), EXIT_MS);
    await exited;
    clearTimeout(force);
  }

  private receive(child: ChildProcess, wire: unknown): void {
    if (child !== this.child) return;
    const parsed = fromEngineSchema.safeParse(wire);
    if (!parsed.success) {
      const issue = parsed.error.issues[0];
      this.note(`[agent] the engine sent an invalid message: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`);
      child.kill('SIGKILL');
      return;
    }
    if (parsed.data.type !== 'ready') return this.options.onMessage(parsed.data);
    if (this.readyTimer !== null) clearTimeout(this.readyTimer);
    this.ready = true;
    this.readyAt = performance.now();
    this.options.onReady(parsed.data.device, parsed.data.jobKinds);
  }

  private exited(child: ChildProcess, code: number | null, signal: NodeJS.Signals | null): void {
    if (child !== this.child) return;
    this.child = null;
    if (this.readyTimer !== null) clearTimeout(this.readyTimer);
    const wasStable = this.ready && performance.now() - this.readyAt > STABLE_MS;
    this.ready = false;
    this.crashes++;
    this.crashesInRow = wasStable ? 1 : this.crashesInRow + 1;
    this.options.onExit({ code, signal, outOfMemory: signal === 'SIGKILL' && (countOomKills() ?? 0) > (this.oomKillsAtStart ?? Infinity), logTail: [...this.logTail], crashes: this.crashes });
    if (this.stopping) return;
    const delayMs = backoffDelayMs(this.options.restart, this.crashesInRow);
    this.options.logger.warn({ code, signal, crashes: this.crashes, delayMs, logTail: this.logTail.slice(-5) }, 'the engine exited, starting it again');
    this.restartTimer = setTimeout(() => this.start(), delayMs);
  }

  private follow(stream: NodeJS.ReadableStream | null): void {
    if (stream === null) return;
    createInterface({ input: stream }).on('line', (line) => {
      this.note(line);
      this.options.logger.debug({ line }, 'engine output');
    });
  }

  private note(line: string): void {
    this.logTail.push(line.slice(0, LOG_LINE_CHARS));
    if (this.logTail.length > LOG_TAIL_LINES) this.logTail.shift();
  }
}
