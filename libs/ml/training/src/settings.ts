import type { ScheduleName } from './schedule';
import type { KeptStems } from './stem-store';

/** Everything that decides a training run besides model, tuner and data. */
export interface TrainingSettings {
  readonly seed: number;
  readonly epochs: number;
  /** Examples per optimiser step, at most 256. */
  readonly batchSize: number;
  readonly learningRate: number;
  readonly schedule: ScheduleName;
  readonly warmupRatio: number;
  readonly weightDecay: number;
  readonly maxGradNorm: number;
  /** NEFTune's alpha, see `withEmbeddingNoise`; absent: no noise. */
  readonly neftuneNoiseAlpha?: number;
}

/** How a step is fitted into memory. Another choice gives the same mathematics but not the same bits. */
export interface Batching {
  /** Room of a pass, in rows of the longest example; shorter ones share it. */
  readonly microBatchSize: number;
  /** Compute each block again in the backward pass instead of keeping its activations. */
  readonly recomputeBlocks: boolean;
  /** What the first blocks give is kept off the device, so that later epochs do without them; absent: it is not. */
  readonly keptStems?: KeptStems;
}
