import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { TunefleetError, sleep, type Logger } from '@tunefleet/foundation';
import { decideRestart, type ChildHistory, type RestartPolicy } from './restart-policy';

export interface ChildSpec {
  readonly name: string;
  /** Module that Node runs. */
  readonly file: string;
  /** Asked anew at every start, so that a restarted child keeps what the first one was given (its ports, say). */
  readonly env: () => NodeJS.ProcessEnv;
  /** Where its output goes; undefined: this terminal. */
  readonly logFile: string | undefined;
  /** How long a gentle stop may take before it is forced. */
  readonly stopGraceMs: number;
  /** The child's `{type: 'ready', …}` message, at every start. */
  readonly onReady: (message: Readonly<Record<string, unknown>>) => void;
  /** After the child's `{type: 'refused', reason}` message, once it has ended: it is not started again, because that would change nothing. */
  readonly onRefused?: (reason: string) => void;
}

/** A process that is kept running: restarted when it dies, until it is stopped or given up. */
export class ManagedChild {
  #process: ChildProcess | undefined;
  #exited: Promise<void> = Promise.resolve();
  #refusal: string | null = null;
  #history: ChildHistory = { failures: 0, everReady: false };
  readonly #stopping = new AbortController();
  #forced = false;

  /** @param onGivenUp the child never got ready and will not be started again */
  constructor(
    readonly spec: ChildSpec,
    private readonly policy: RestartPolicy,
    private readonly logger: Logger,
    private readonly onGivenUp: (error: TunefleetError) => void,
  ) {}

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  start(): void {
    if (this.#stopping.signal.aborted) return;
    const { spec } = this;
    const startedAt = performance.now();
    const log = spec.logFile === undefined ? 'inherit' : openSync(spec.logFile, 'a', 0o600);
    // A group of its own: Ctrl-C in the terminal must reach the supervisor alone, which stops its children in order.
    const child = spawn(process.execPath, ['--enable-source-maps', spec.file], { env: spec.env(), stdio: ['ignore', log, log, 'ipc'], detached: true });
    if (typeof log === 'number') closeSync(log);
    this.#process = child;
    child.on('message', (message: unknown) => {
      if (isMessage(message, 'refused')) this.#refusal = String(message['reason'] ?? '');
      if (!isMessage(message, 'ready')) return;
      this.#history = { ...this.#history, everReady: true };
      spec.onReady(message);
    });
    this.#exited = new Promise((resolve) => {
      const ended = (outcome: string): void => {
        if (this.#process !== child) return;
        this.#process = undefined;
        // What the child had started itself goes with it, also after a kill.
        signalGroup(child.pid, 'SIGKILL');
        resolve();
        this.#onDeath(outcome, performance.now() - startedAt);
      };
      child.once('error', (error) => ended(error.message));
      child.once('exit', (code, signal) => ended(signal === null ? `exit code ${code}` : signal));
    });
  }

  /** Asks the child to stop, then forces it. Resolves when the process is gone. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    const child = this.#process;
    if (child === undefined) return;
    child.kill('SIGTERM');
    if (this.#forced) this.kill();
    const grace = new AbortController();
    await Promise.race([this.#exited, sleep(this.spec.stopGraceMs, grace.signal)]);
    grace.abort();
    if (this.#process !== undefined) {
      this.logger.warn({ child: this.spec.name }, `did not stop within ${this.spec.stopGraceMs / 1000} s; killing it`);
      this.kill();
      await this.#exited;
    }
  }

  /** Ends the child and what it started, at once. */
  kill(): void {
    this.#stopping.abort();
    this.#forced = true;
    signalGroup(this.#process?.pid, 'SIGKILL');
  }

  #onDeath(outcome: string, uptimeMs: number): void {
    if (this.#stopping.signal.aborted) return;
    if (this.#refusal !== null) return this.spec.onRefused?.(this.#refusal);
    const decision = decideRestart(this.policy, this.#history, uptimeMs);
    if (decision.kind === 'give_up') {
      const where = this.spec.logFile === undefined ? 'its output above' : this.spec.logFile;
      this.onGivenUp(new TunefleetError('unavailable', `the ${this.spec.name} ended ${decision.failures} times before it was ready (${outcome}); see ${where}`));
      return;
    }
    this.#history = decision.history;
    this.logger.warn({ child: this.spec.name, delayMs: decision.delayMs }, `ended (${outcome}); starting it again`);
    void sleep(decision.delayMs, this.#stopping.signal).then(() => this.start());
  }
}

function isMessage(message: unknown, type: string): message is Readonly<Record<string, unknown>> {
  return typeof message === 'object' && message !== null && 'type' in message && message.type === type;
}

function signalGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // The whole group has ended: nothing to do.
  }
}
