import { systemTimers, type Clock, type Logger, type Timer, type Timers } from '@tunefleet/foundation';
import type { ToEngine } from '../engine-protocol';
import type { EngineExit, EngineProcess } from './engine-process';
import type { AgentSettings } from './settings';

export interface EngineRunsOptions {
  readonly engine: Pick<EngineProcess, 'send' | 'kill' | 'recentLines'>;
  readonly settings: Pick<AgentSettings, 'sharedStopMs'>;
  readonly clock: Clock;
  readonly timers?: Timers | undefined;
  readonly logger: Logger;
  /** The engine takes nothing from here on. */
  readonly onKill: () => void;
  /** It was to end and has not: it is not waited for any more. Once the engine is killed, or is left to the others. */
  readonly onUnanswered: (runId: string) => void;
}

/** How an engine ended that had runs in it. */
export interface EngineEnd extends EngineExit {
  /** Runs that it took down. */
  readonly runIds: readonly string[];
  /** It was killed for this one's sake; null: it was not killed by the agent. */
  readonly killedFor: string | null;
}

interface Run {
  /** It spoke last; on the monotonic clock. */
  heardAt: number;
  /** It is to end before this. */
  deadline: Timer | null;
  /** Nobody waits for its answer, which may never come. */
  isDropped: boolean;
}

/**
 * What the engine has been given and has not answered yet, whether or not an attempt still waits for it. One process holds all runs, so killing it for one that does not
 * end takes the others down. That is put off as long as there are others, because between two passes of theirs the engine may still listen; and where they speak all the
 * while, only the one hangs: it is dropped, and the engine killed when it has nothing else any more.
 */
export class EngineRuns {
  private readonly runs = new Map<string, Run>();
  private readonly timers: Timers;
  private killedFor: string | null = null;

  constructor(private readonly options: EngineRunsOptions) {
    this.timers = options.timers ?? systemTimers;
  }

  get ids(): readonly string[] {
    return [...this.runs.keys()];
  }

  get recentLines(): readonly string[] {
    return this.options.engine.recentLines;
  }

  /** @returns false when there is no engine to take it */
  begin(run: ToEngine & { type: 'run' }): boolean {
    if (!this.options.engine.send(run)) return false;
    this.runs.set(run.runId, { heardAt: Number.NEGATIVE_INFINITY, deadline: null, isDropped: false });
    return true;
  }

  /** The engine has spoken of it. */
  heard(runId: string): void {
    const run = this.runs.get(runId);
    if (run !== undefined) run.heardAt = this.options.clock.monotonic();
  }

  /** Asks a run to end. It is not waited for when it has not after this time, or, where others are in the engine, after `sharedStopMs` if that is longer. */
  end(runId: string, { checkpoint, killAfterMs }: { readonly checkpoint: boolean; readonly killAfterMs: number }): void {
    const run = this.runs.get(runId);
    if (run === undefined) return;
    this.options.engine.send({ type: 'stop', runId, checkpoint });
    run.deadline?.cancel();
    const isOverdue = (waitedMs: number): void => {
      const others = this.othersOf(run);
      const moreMs = others.length > 0 ? this.options.settings.sharedStopMs - waitedMs : 0;
      if (moreMs > 0) return void (run.deadline = this.timers.after(moreMs, () => isOverdue(waitedMs + moreMs)));
      const since = this.options.clock.monotonic() - waitedMs / 2;
      if (others.some(({ heardAt }) => heardAt >= since)) this.drop(runId, run, waitedMs);
      else this.kill(runId, 'the engine did not stop in time and is killed');
      this.options.onUnanswered(runId);
    };
    run.deadline = this.timers.after(killAfterMs, () => isOverdue(killAfterMs));
  }

  /** The engine has answered it. */
  answered(runId: string): void {
    this.runs.get(runId)?.deadline?.cancel();
    this.runs.delete(runId);
    const [left] = this.runs.keys();
    if (left !== undefined && [...this.runs.values()].every(({ isDropped }) => isDropped)) this.kill(left, 'the engine has only runs that hang and is killed');
  }

  /** The process is gone, and all runs with it. */
  exited(exit: EngineExit): EngineEnd {
    const { ids, killedFor } = this;
    for (const { deadline } of this.runs.values()) deadline?.cancel();
    this.runs.clear();
    this.killedFor = null;
    return { ...exit, runIds: ids, killedFor };
  }

  private othersOf(run: Run): Run[] {
    return [...this.runs.values()].filter((other) => other !== run && !other.isDropped);
  }

  private drop(runId: string, run: Run, waitedMs: number): void {
    run.isDropped = true;
    this.options.logger.warn({ runId, waitedMs, others: this.othersOf(run).length }, 'a run hangs beside others that go on; the engine takes no more until they have ended');
  }

  private kill(runId: string, why: string): void {
    this.options.logger.warn({ runId, runs: this.ids }, why);
    this.killedFor ??= runId;
    this.options.engine.kill();
    this.options.onKill();
  }
}
