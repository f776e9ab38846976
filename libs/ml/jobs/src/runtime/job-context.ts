import type { ArtifactRef } from '@tunefleet/contracts';
import type { Clock } from '@tunefleet/foundation';
import type { EngineResources } from './engine-resources';
import type { StopRequest } from './stop-request';

export interface Progress {
  readonly step: number;
  readonly totalSteps: number;
  /** What is going on, for people: `load`, `train`, `validate`, `score`, `save`. */
  readonly phase: string;
  readonly tokensPerSecond: number;
  readonly etaSeconds: number;
  /** Examples per forward pass, of kinds that train. */
  readonly microBatchSize?: number;
}

/** A complete folder that will not change any more; whoever gets it uploads it and removes it. */
export interface WrittenFolder {
  readonly dir: string;
  readonly files: readonly ArtifactRef[];
}

/** Where a handler reports what happens. Order is kept; nothing is awaited. */
export interface JobEvents {
  log(level: 'info' | 'warn' | 'error', message: string, data?: unknown): void;
  metrics(step: number, values: Readonly<Record<string, number>>): void;
  progress(progress: Progress): void;
  checkpoint(step: number, folder: WrittenFolder, metrics: Readonly<Record<string, number>>): void;
  /** Which base model is in device memory now, and which are in the local cache, as `id@revision`. */
  model(inMemory: string | null, onDisk: readonly string[]): void;
}

/** All a handler may touch. */
export interface JobContext<Spec> {
  readonly spec: Spec;
  /** SHA-256 -> local path of every input artifact of the spec. */
  readonly inputFiles: ReadonlyMap<string, string>;
  /** Checkpoint folder to go on from; null: from the start. */
  readonly resumeDir: string | null;
  /** Empty folder of this run: `ckpt-<step>/` and `result/` go there. */
  readonly outputDir: string;
  readonly events: JobEvents;
  readonly stop: StopRequest;
  readonly engine: EngineResources;
  readonly clock: Clock;
}

export type JobOutcome<Result> =
  | { readonly type: 'succeeded'; readonly result: Result; readonly folder: WrittenFolder }
  | { readonly type: 'stopped' };

/** Runs a job to its end. @throws anything; `classifyFailure` says what it means */
export type JobHandler<Spec, Result> = (context: JobContext<Spec>) => Promise<JobOutcome<Result>>;
