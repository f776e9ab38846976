import type { ArtifactRef, Failure } from '@tunefleet/contracts';
import type { Timers } from '@tunefleet/foundation';
import type { AgentParts, Engine } from '../../worker/src/agent/agent';
import type { DeviceReport, FromEngine, ToEngine } from '../../worker/src/engine-protocol';
import type { FaultCounts } from './fault-counts';
import { behaviourOf } from './job-spec';
import type { Random } from './random';

export type EngineCallbacks = Parameters<AgentParts['engine']>[0];

export interface SimulatedEngineDeps {
  readonly timers: Timers;
  readonly random: Random;
  readonly device: DeviceReport;
  readonly newHash: () => string;
  /** Of the checkpoint in the run's resume folder. */
  readonly resumeStepOf: (attemptId: string) => number;
  /** It has been given a run beside others; by attempt, with the models of those that have not ended. */
  readonly onShared: (models: ReadonlyMap<string, string>) => void;
  /** This attempt hangs, by itself or with all of its engine. */
  readonly onHang: (attemptId: string) => void;
  /** It has made a step of this attempt. */
  readonly onStep: (attemptId: string) => void;
  readonly counts: FaultCounts;
}

interface Run {
  readonly id: string;
  readonly model: string;
  readonly fromStep: number;
  step: number;
  stopped: boolean;
  stuck: boolean;
}

const LOAD_MS = 4_000;
/** How much longer a step takes for each other run that makes its steps with it. */
const SHARED_STEP = 0.3;

/** An engine process as its agent sees it: it loads, steps, checkpoints, and can die, hang or run out of memory, with all its runs. */
export class SimulatedEngine implements Engine {
  isReady = false;
  readonly pid = undefined;
  readonly recentLines: readonly string[] = [];
  private readonly runs = new Map<string, Run>();
  private model: string | null = null;
  private ended = false;
  private hung = false;
  private crashes = 0;
  private life = 0;

  constructor(
    private readonly deps: SimulatedEngineDeps,
    private readonly callbacks: EngineCallbacks,
  ) {}

  start(): void {
    this.inThisLife(this.deps.random.between(200, 3_000), () => {
      this.isReady = true;
      this.callbacks.onReady(this.deps.device, ['fine-tune', 'eval']);
    });
  }

  send(message: ToEngine): boolean {
    if (!this.isReady) return false;
    if (message.type === 'run') this.begin(message);
    const stopped = message.type === 'stop' ? this.runs.get(message.runId) : undefined;
    if (message.type === 'stop' && stopped !== undefined) this.stopRun(stopped, message.checkpoint);
    return true;
  }

  kill(): void {
    this.die({ outOfMemory: false });
  }

  async stop(): Promise<void> {
    this.ended = true;
    this.life++;
  }

  /** A fault: the process dies in the middle of whatever it does. */
  crash(): boolean {
    return this.die({ outOfMemory: false });
  }

  /** A fault: it does nothing any more, not even answer. @returns whether there was anything for it to do */
  hang(): boolean {
    const { working } = this;
    if (working.length === 0) return false;
    this.hung = true;
    for (const run of this.runs.values()) run.stuck = true;
    for (const { id } of working) this.deps.onHang(id);
    return true;
  }

  /** A fault: one of several runs waits for something that never comes; the others go on. @returns whether there were others */
  hangOne(): boolean {
    const { working } = this;
    if (working.length < 2) return false;
    const run = this.deps.random.pick(working);
    run.stuck = true;
    this.deps.onHang(run.id);
    return true;
  }

  get hangs(): boolean {
    return [...this.runs.values()].some(({ stuck }) => stuck);
  }

  private get working(): readonly Run[] {
    return [...this.runs.values()].filter(({ stopped, stuck }) => !stopped && !stuck);
  }

  private begin(message: ToEngine & { type: 'run' }): void {
    const { random, newHash } = this.deps;
    const behaviour = behaviourOf(message.spec);
    const fromStep = message.resumeDir === null ? 0 : this.deps.resumeStepOf(message.runId);
    const run: Run = { id: message.runId, model: behaviour.model, fromStep, step: fromStep, stopped: false, stuck: this.hung };
    this.runs.set(run.id, run);
    if (run.stuck) this.deps.onHang(run.id);
    if (this.runs.size > 1) this.deps.onShared(new Map([...this.runs.values()].map(({ id, model: held }) => [id, held])));
    const emit = (event: FromEngine): void => this.callbacks.onMessage(event);
    const file = (name: string): ArtifactRef => ({ name, sha256: newHash(), bytes: 1000 });
    const { steps, stepMs, checkpointEvery, microBatchSize, fate, model } = behaviour;
    const progress = (phase: string): FromEngine => ({
      ...{ type: 'progress', runId: run.id, step: run.step, totalSteps: steps, phase, tokensPerSecond: 100, microBatchSize },
      etaSeconds: ((steps - run.step) * stepMs) / 1000,
    });
    const isOver = (): boolean => run.stopped || run.stuck || this.runs.get(run.id) !== run;

    const next = (): void => {
      if (isOver()) return;
      if (fate === 'oom_always' || (fate === 'oom' && microBatchSize > 4)) return void this.die({ outOfMemory: true });
      if (fate === 'user_error' && run.step >= steps / 2) return this.fail(run, { class: 'user', code: 'numerical', message: 'loss is not finite', param: null, logTail: [] });
      run.step++;
      this.deps.onStep(run.id);
      // The number of the attempt stands in the value: whoever stores it can be asked whose it is.
      emit({ type: 'metrics', runId: run.id, step: run.step, values: { train_loss: numberOf(run.id) } });
      emit(progress('train'));
      if (run.step >= steps) return this.succeed(run, [file('adapter.safetensors'), file('adapter_config.json')]);
      if (run.step % checkpointEvery === 0) emit(this.checkpoint(run));
      this.inThisLife(stepMs * random.between(0.8, 1.2) * (1 + SHARED_STEP * (this.runs.size - 1)), next);
    };
    emit(progress('load'));
    // What the others have loaded is there.
    this.inThisLife(random.between(0.5, 1.5) * (this.runs.size > 1 && this.model === model ? 100 : LOAD_MS), () => {
      if (isOver()) return;
      this.model = model;
      emit({ type: 'model', runId: run.id, inMemory: model, onDisk: [model] });
      if (run.step >= steps) return this.succeed(run, [file('adapter.safetensors')]);
      next();
    });
  }

  private stopRun(run: Run, checkpoint: boolean): void {
    const { random } = this.deps;
    if (run.stuck || run.stopped) return;
    run.stopped = true;
    // One that does not listen is killed by its agent.
    if (random.chance(0.03)) return;
    this.inThisLife(random.between(50, checkpoint ? 5_000 : 1_400), () => {
      if (this.runs.get(run.id) !== run || run.stuck) return;
      if (checkpoint && run.step > 0) this.callbacks.onMessage(this.checkpoint(run));
      this.end(run, { type: 'stopped', runId: run.id });
    });
  }

  /** The step stands in the file's name: that is all of it that a resumed run needs. */
  private checkpoint(run: Run): FromEngine {
    const file = { name: `state-${run.step}.bin`, sha256: this.deps.newHash(), bytes: 1000 };
    return { type: 'checkpoint', runId: run.id, step: run.step, dir: `ckpt-${run.step}`, files: [file], metrics: {} };
  }

  private succeed(run: Run, files: readonly ArtifactRef[]): void {
    const zero = { trainedTokens: 0, lossTokens: 0, lossFirst: 0, lossLast: 0, validLoss: null, tokensPerSecond: 0, trainSeconds: 0, peakRssBytes: 0, peakDeviceBytes: 0, trainableParameters: 0 };
    this.end(run, { type: 'succeeded', runId: run.id, result: { steps: run.step, computeDtype: 'f32', ...zero }, dir: 'result', files: [...files] });
  }

  private fail(run: Run, failure: Failure): void {
    this.end(run, { type: 'failed', runId: run.id, failure });
  }

  private end(run: Run, message: FromEngine): void {
    run.stopped = true;
    this.runs.delete(run.id);
    this.callbacks.onMessage(message);
  }

  private die({ outOfMemory }: { readonly outOfMemory: boolean }): boolean {
    if (!this.isReady || this.ended) return false;
    if (outOfMemory) this.deps.counts.add('engine out of memory');
    this.isReady = false;
    this.hung = false;
    this.runs.clear();
    this.model = null;
    this.life++;
    this.callbacks.onExit({ code: null, signal: 'SIGKILL', outOfMemory, logTail: [], crashes: ++this.crashes });
    this.inThisLife(this.deps.random.between(100, 8_000), () => this.start());
    return true;
  }

  private inThisLife(ms: number, run: () => void): void {
    const { life } = this;
    this.deps.timers.after(ms, () => {
      if (this.life === life && !this.ended) run();
    });
  }
}

/** Attempt ids of a simulation are counted. */
export function numberOf(attemptId: string): number {
  return Number(/(\d+)$/.exec(attemptId)?.[1] ?? Number.NaN);
}
