import type { TokenisedDataset } from '@tunefleet/ml-data';
import { describeCausalLm, type CausalLmDescription } from '@tunefleet/ml-models';
import type { Device } from '@tunefleet/ml-tensor';
import { examplesOf, paddedWidth, StepMemory, type Batching, type TrainedModel, type TrainingBatch, type TrainingRun } from '@tunefleet/ml-training';
import { estimateMemory, type MemoryEstimate, type TrainingShape } from '@tunefleet/ml-tuners';
import type { SharedPassBytes } from '../runtime/step-exchange';

/** Of the device's bytes, what a processor's process takes beside them: allocators keep freed blocks, kernels have room of their own. Measured, see docs/operate/capacity.md. */
const PROCESS_SHARE = 0.3;
/** How far the formula may be from the count. */
const FORMULA_ERROR = 0.15;
/** Passes of most tokens, among which the one that needs most is looked for. */
const HEAVIEST = 16;

export interface PlannedData {
  /** Training data, then what else passes are made of. */
  readonly datasets: readonly TokenisedDataset[];
  /** Examples that stay together. */
  readonly groupSize: number;
}

/** Foretells what a run's steps need, before the first of them. Nothing is computed for it. */
export class MemoryPlan implements Disposable {
  readonly #model: CausalLmDescription;
  #counting: StepMemory | null = null;

  constructor(
    private readonly device: Device,
    private readonly trained: TrainedModel,
    private readonly data: PlannedData,
  ) {
    this.#model = describeCausalLm(trained.config);
  }

  /** Tokens of the longest example, padded. */
  get columns(): number {
    return paddedWidth(Math.max(...this.data.datasets.map(({ lengths }) => lengths.reduce((longest, length) => Math.max(longest, length), 0))));
  }

  /**
   * The most that any step can take beyond the weights: every example as long as the longest, every token learned. On a processor with what the host needs, of the same memory.
   * @param availableBytes where the formula is not clear of it, the step is counted: takes tenths of a second
   */
  boundBytes({ microBatchSize, recomputeBlocks }: Batching, availableBytes: number): number {
    const rows = microBatchSize * this.data.groupSize;
    const { columns } = this;
    const shape = { rows, columns, labelled: rows * (columns - 1), recomputeBlocks };
    const { deviceBytes, weightBytes, optimiserBytes } = this.#estimate(shape);
    const inAll = (stepBytes: number): number => this.#inProcess(stepBytes, optimiserBytes);
    const estimate = inAll(deviceBytes - weightBytes);
    if (Math.abs(estimate / availableBytes - 1) > FORMULA_ERROR) return estimate;
    return inAll(this.#step.peakBytes(shape) - this.#step.weightBytes);
  }

  /** Foretold of passes that the run shares, as `boundBytes`. Blocks that are not computed again take more, so that is assumed of all who share. */
  sharedPassBytes(): SharedPassBytes {
    const { columns } = this;
    const of = (tokens: number): MemoryEstimate => this.#estimate({ rows: Math.ceil(tokens / columns), columns: Math.min(columns, tokens), recomputeBlocks: false });
    const { adapterBytes, gradientBytes, optimiserBytes } = of(columns);
    return {
      own: this.#inProcess(adapterBytes + gradientBytes, optimiserBytes),
      pass: (tokens) => {
        const { activationBytes, logitsBytes } = of(tokens);
        return this.#inProcess(activationBytes + logitsBytes, 0);
      },
    };
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
    this.#counting?.[Symbol.dispose]();
    this.#counting = null;
  }

  #estimate(shape: Pick<TrainingShape, 'rows' | 'columns' | 'labelled' | 'recomputeBlocks'>): MemoryEstimate {
    const { tuner: spec, precision: { computeDtype, weightDtype } } = this.trained;
    return estimateMemory({ model: this.#model, spec, computeDtype, weightDtype, ...shape });
  }

  /** On a processor the process takes more than the device counts. */
  #inProcess(deviceBytes: number, optimiserBytes: number): number {
    return this.device.info.gpu ? deviceBytes : deviceBytes * (1 + PROCESS_SHARE) + optimiserBytes;
  }

  get #step(): StepMemory {
    return (this.#counting ??= new StepMemory(this.device, this.trained));
  }
}

function most(batches: readonly TrainingBatch[], size: (batch: TrainingBatch) => number): TrainingBatch {
  return batches.reduce((best, batch) => (size(batch) > size(best) ? batch : best));
}
