import { systemTimers, type Logger, type Timer, type Timers } from '@tunefleet/foundation';
import type { ToEngine } from '../engine-protocol';
import type { EngineExit, EngineProcess } from './engine-process';
import type { AgentSettings } from './settings';

export interface EngineRunsOptions {
  readonly engine: Pick<EngineProcess, 'send' | 'kill' | 'recentLines'>;
  readonly settings: Pick<AgentSettings, 'sharedStopMs'>;
  readonly timers?: Timers | undefined;
  readonly logger: Logger;
  /** The engine takes nothing from here on. */
  readonly onKill: () => void;
}

/** How an engine ended that had runs in it. */
export interface EngineEnd extends EngineExit {
  /** Runs that it took down. */
  readonly runIds: readonly string[];
  /** It was killed for this one's sake; null: it was not killed by the agent. */
  readonly killedFor: string | null;
}

/**
 * What the engine has been given and has not answered yet, whether or not an attempt still waits for it. One process holds all runs, so killing it for one that does not
 * end takes the others down: that is put off as long as there are others, because between two passes of theirs the engine may still listen.
 */
export class EngineRuns {
  /** With the timer of those that are to end. */
  private readonly runs = new Map<string, Timer | null>();
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
    this.runs.set(run.runId, null);
    return true;
  }

  /** Asks a run to end. The engine is killed when it has not after this time, or, where others are in it, after `sharedStopMs` if that is longer. */
  end(runId: string, { checkpoint, killAfterMs }: { readonly checkpoint: boolean; readonly killAfterMs: number }): void {
    if (!this.runs.has(runId)) return;
    this.ask(runId, checkpoint);
    this.runs.get(runId)?.cancel();
    const isOverdue = (waitedMs: number): void => {
      const moreMs = this.runs.size > 1 ? this.options.settings.sharedStopMs - waitedMs : 0;
      if (moreMs > 0) return void this.runs.set(runId, this.timers.after(moreMs, () => isOverdue(waitedMs + moreMs)));
      this.options.logger.warn({ runId, waitedMs, others: this.runs.size - 1 }, 'the engine did not stop in time and is killed');
      this.kill(runId);
    };
    this.runs.set(runId, this.timers.after(killAfterMs, () => isOverdue(killAfterMs)));
  }

  /** Asks a run to end, and leaves it at that. */
  ask(runId: string, checkpoint: boolean): void {
    this.options.engine.send({ type: 'stop', runId, checkpoint });
  }

  /** Ends the engine for a run's sake. */
  kill(runId: string): void {
    this.killedFor ??= runId;
    this.options.engine.kill();
    this.options.onKill();
  }

  /** The engine has answered it. */
  answered(runId: string): void {
    this.runs.get(runId)?.cancel();
    this.runs.delete(runId);
  }

  /** The process is gone, and all runs with it. */
  exited(exit: EngineExit): EngineEnd {
    const { ids, killedFor } = this;
    for (const timer of this.runs.values()) timer?.cancel();
    this.runs.clear();
    this.killedFor = null;
    return { ...exit, runIds: ids, killedFor };
  }
}
