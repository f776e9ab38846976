import type { ModelHook } from '@tunefleet/ml-nn';
import type { Tensor } from '@tunefleet/ml-tensor';
import type { BindableModel, DropoutKey, Tuner } from '@tunefleet/ml-tuners';
import type { TrainingBatch } from './collate';
import { withEmbeddingNoise } from './embedding-noise';
import type { TrainingSettings } from './settings';

/** What is active in a training pass: the tuner, and noise where the run's settings ask for it. @returns as `Tuner.bind` */
export function trainingHook(model: BindableModel, { tuner, settings }: { readonly tuner: Tuner; readonly settings: TrainingSettings }, values: readonly Tensor[], { batch, dropout }: { readonly batch: TrainingBatch; readonly dropout: DropoutKey }): ModelHook {
  return withTrainingNoise(tuner.bind(model, values, dropout), settings, { batch, dropout });
}

/** A bound tuner, and noise where the run's settings ask for it. */
export function withTrainingNoise(bound: ModelHook, { neftuneNoiseAlpha: alpha }: Pick<TrainingSettings, 'neftuneNoiseAlpha'>, { batch, dropout }: { readonly batch: Pick<TrainingBatch, 'lengths'>; readonly dropout: DropoutKey }): ModelHook {
  return alpha === undefined || dropout === null ? bound : withEmbeddingNoise(bound, { alpha, lengths: batch.lengths, key: dropout });
}
