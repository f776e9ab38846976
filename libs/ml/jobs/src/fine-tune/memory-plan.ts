import type { TokenisedDataset } from '@tunefleet/ml-data';
import type { Device } from '@tunefleet/ml-tensor';
import { examplesOf, paddedWidth, StepMemory, type Batching, type TrainedModel, type TrainingBatch, type TrainingRun } from '@tunefleet/ml-training';

/** Vectors of the parameters' size that a step has on the host, f32: the values, two moments, the gradient of the step and that of a pass. */
const HOST_VECTORS = 5;
/** Of the device's bytes, what a processor's process takes beside them: allocators keep freed blocks, kernels have room of their own. Measured, see docs/operate/capacity.md. */
const PROCESS_SHARE = 0.3;
/** Passes of most tokens, among which the one that needs most is looked for. */
const HEAVIEST = 16;

export interface PlannedData {
  /** Training data, then what else passes are made of. */
  readonly datasets: readonly TokenisedDataset[];
  /** Examples that stay together. */
  readonly groupSize: number;
}

/** Foretells what a run's steps need, before the first of them. Counts on shapes; nothing is computed. */
export class MemoryPlan implements Disposable {
  readonly #step: StepMemory;

  constructor(
    private readonly device: Device,
    trained: TrainedModel,
    private readonly data: PlannedData,
  ) {
    this.#step = new StepMemory(device, trained);
  }

  /** Tokens of the longest example, padded. */
  get columns(): number {
    return paddedWidth(Math.max(...this.data.datasets.map(({ lengths }) => lengths.reduce((longest, length) => Math.max(longest, length), 0))));
  }

  /** The most that any step can take beyond the weights: every example as long as the longest, every token learned. On a processor with what the host needs, of the same memory. */
  boundBytes({ microBatchSize, recomputeBlocks }: Batching): number {
    const rows = microBatchSize * this.data.groupSize;
    const { columns } = this;
    const deviceBytes = this.#step.peakBytes({ rows, columns, labelled: rows * (columns - 1), recomputeBlocks }) - this.#step.weightBytes;
    return this.device.info.gpu ? deviceBytes : deviceBytes * (1 + PROCESS_SHARE) + 4 * HOST_VECTORS * this.#step.parameterCount;
  }

  /** Device bytes at the peak of the first epoch, weights included: counted of its passes as they will be. */
  peakBytes(run: TrainingRun, { recomputeBlocks }: Batching): number {
    const [dataset] = this.data.datasets as readonly [TokenisedDataset];
    const tokensOf = (examples: Int32Array): number => examples.reduce((sum, example) => sum + (dataset.lengths[example] as number), 0);
    const passes = run.passesOver(dataset).map((groups) => ({ groups, tokens: tokensOf(examplesOf(groups, this.data.groupSize)) }));
    const batches = passes
      .sort((a, b) => b.tokens - a.tokens)
      .slice(0, HEAVIEST)
      .map(({ groups }) => run.collate(dataset, groups));
    const candidates = new Set([most(batches, ({ tokens }) => tokens.rows * tokens.columns), most(batches, ({ lossTokens }) => lossTokens)]);
    return Math.max(...[...candidates].map((batch) => this.#step.peakBytesOf(batch, { recomputeBlocks })));
  }

  [Symbol.dispose](): void {
    this.#step[Symbol.dispose]();
  }
}

function most(batches: readonly TrainingBatch[], size: (batch: TrainingBatch) => number): TrainingBatch {
  return batches.reduce((best, batch) => (size(batch) > size(best) ? batch : best));
}
