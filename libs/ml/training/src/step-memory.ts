import { IGNORED_LABEL } from '@tunefleet/ml-data';
import { shapeCausalLm, type CausalLm, type Precision } from '@tunefleet/ml-models';
import { headOf } from '@tunefleet/ml-nn';
import { gradients, headCrossEntropy, ShapesDevice, type Device } from '@tunefleet/ml-tensor';
import { createTuner, JOINED_BYTES_MAX, type DropoutKey, type Tuner, type TunerSpec } from '@tunefleet/ml-tuners';
import { labelled, type TrainingBatch } from './collate';
import { ParameterViews } from './parameter-views';
import type { TrainingSettings } from './settings';
import { withTrainingNoise } from './training-hook';

/** What is trained, and on what. */
export interface TrainedModel {
  /** config.json, unchecked. */
  readonly config: unknown;
  readonly precision: Precision;
  readonly tuner: TunerSpec;
  readonly settings: Pick<TrainingSettings, 'neftuneNoiseAlpha'>;
}

/** A pass of examples of one length, an example per row. */
export interface StepShape {
  readonly rows: number;
  readonly columns: number;
  /** Tokens of all rows that carry loss. */
  readonly labelled: number;
  readonly recomputeBlocks: boolean;
}

/** What of a batch the device sees. */
export type PassBatch = Pick<TrainingBatch, 'tokens' | 'labels' | 'lengths'>;

const KEY: NonNullable<DropoutKey> = [0, 0];

/**
 * Bytes on the device during a training step, counted by making the step on a device that has shapes only: exact, takes milliseconds, needs no weights.
 * @throws TunefleetError `incompatible_artifact`, `invalid_input` when the tuner does not fit the model
 */
export class StepMemory implements Disposable {
  /** Of the model, as long as it is loaded. */
  readonly weightBytes: number;
  readonly #device: ShapesDevice;
  readonly #model: CausalLm;
  readonly #tuner: Tuner;
  readonly #settings: Pick<TrainingSettings, 'neftuneNoiseAlpha'>;

  /** @param device which the step is to be made on */
  constructor(device: Device, { config, precision, tuner, settings }: TrainedModel) {
    this.#device = new ShapesDevice(device);
    this.#model = shapeCausalLm(this.#device, config, precision);
    this.#tuner = createTuner(tuner, this.#model);
    this.#settings = settings;
    this.weightBytes = this.#model.weightBytes;
  }

  /** The most at once, weights included. */
  peakBytes(shape: StepShape): number {
    return this.peakBytesOf(batchOf(shape, this.#model.vocabSize), shape);
  }

  /** The same of a batch as it is. */
  peakBytesOf(batch: PassBatch, { recomputeBlocks }: Pick<StepShape, 'recomputeBlocks'>): number {
    const device = this.#device;
    device.resetPeak();
    using views = new ParameterViews(device, this.#tuner.parameters, null);
    device.scope(() => {
      const adapter = withTrainingNoise(this.#tuner.bind(this.#model, views.tensors, KEY), this.#settings, { batch, dropout: KEY });
      const { gradients: parts } = gradients(device, views.tensors, () => {
        const { rows, labels } = labelled(batch.labels);
        const hidden = this.#model.forward(batch.tokens, { adapter, recomputeBlocks, outputRows: rows });
        return headCrossEntropy(hidden, headOf(this.#model, adapter), labels, { scale: 1 });
      });
      // Else it takes nothing on the device, and here it would take as much on the host.
      if (4 * this.#tuner.parameterCount <= JOINED_BYTES_MAX) views.readFlat(device, parts);
    });
    return device.memory.peakBytes;
  }

  [Symbol.dispose](): void {
    this.#model[Symbol.dispose]();
    this.#device.close();
  }
}

/** Of as many different tokens as there can be: gradients of trained rows are summed by token. */
function batchOf({ rows, columns, labelled: wanted }: StepShape, vocabSize: number): PassBatch {
  const count = rows * columns;
  const labels = new Int32Array(count).fill(IGNORED_LABEL);
  labels.fill(0, count - Math.min(count, Math.max(1, wanted)));
  return { tokens: { ids: Int32Array.from({ length: count }, (_, index) => index % vocabSize), rows, columns }, labels, lengths: new Int32Array(count).fill(columns) };
}
