import { PackedDataset } from '@tunefleet/ml-data';
import { describeCausalLm, loadCausalLm, type CausalLm } from '@tunefleet/ml-models';
import type { Device } from '@tunefleet/ml-tensor';
import { StepMemory, startState, Trainer } from '@tunefleet/ml-training';
import { createTuner, estimateMemory, parseTunerSpec, specHalfOf, type TunerSpec } from '@tunefleet/ml-tuners';
import { MODELS, type MemoryCase, type ModelName } from './cases';

/** The model of the case before, kept for the next one that wants the same. */
export class OpenedModels implements Disposable {
  #last: { readonly key: string; readonly model: CausalLm } | null = null;

  constructor(
    readonly device: Device,
    private readonly folderOf: (name: ModelName) => string,
  ) {}

  async open({ model: name, computeDtype, weightDtype }: MemoryCase, spec: TunerSpec): Promise<CausalLm> {
    const quantisation = specHalfOf(spec).baseQuantisation?.(spec) ?? null;
    const key = JSON.stringify([name, computeDtype, weightDtype, quantisation]);
    if (this.#last?.key !== key) {
      this[Symbol.dispose]();
      this.#last = { key, model: await loadCausalLm(this.device, { folder: this.folderOf(name), config: MODELS[name], computeDtype, weightDtype, quantisation }) };
    }
    return this.#last.model;
  }

  [Symbol.dispose](): void {
    this.#last?.model[Symbol.dispose]();
    this.#last = null;
  }
}

/** Device bytes of one training step. */
export interface StepBytes {
  /** By the engine, on shapes. */
  readonly counted: number;
  /** By the formula that the control plane has. */
  readonly estimated: number;
  readonly measured: number;
}

export async function measureStep(models: OpenedModels, each: MemoryCase): Promise<StepBytes> {
  const { rows, columns, recomputeBlocks, computeDtype, weightDtype, neftuneNoiseAlpha, learned } = each;
  const spec = parseTunerSpec(each.tuner);
  const model = await models.open(each, spec);
  const tuner = createTuner(spec, model);
  const trainer = new Trainer({
    model,
    tuner,
    dataset: rowsOfRandomTokens(rows, columns, learned, model.vocabSize),
    settings: { seed: 1, epochs: 1, batchSize: rows, learningRate: 1e-5, schedule: 'constant', warmupRatio: 0, weightDecay: 0, maxGradNorm: 1, ...(neftuneNoiseAlpha === undefined ? {} : { neftuneNoiseAlpha }) },
    batching: { microBatchSize: rows, recomputeBlocks },
    state: startState(tuner.initialValues(1, { model, tokenise: () => Int32Array.of(1, 2, 3) })),
  });
  models.device.resetPeak();
  await trainer.trainStep();
  const measured = models.device.memory.peakBytes;
  const precision = { computeDtype, weightDtype, quantisation: specHalfOf(spec).baseQuantisation?.(spec) ?? null };
  using plan = new StepMemory(models.device, { config: MODELS[each.model], precision, tuner: spec, settings: { ...(neftuneNoiseAlpha === undefined ? {} : { neftuneNoiseAlpha }) } });
  const shape = { rows, columns, labelled: labelledTokens(rows, columns, learned), recomputeBlocks };
  const { deviceBytes } = estimateMemory({ model: describeCausalLm(MODELS[each.model]), spec, computeDtype, weightDtype, ...shape });
  return { counted: plan.peakBytes(shape), estimated: deviceBytes, measured };
}

/** The first token of a row is not predicted. */
function labelledTokens(rows: number, columns: number, share: number): number {
  return rows * Math.min(columns - 1, share * columns);
}

function rowsOfRandomTokens(rows: number, columns: number, share: number, vocabSize: number): PackedDataset {
  let state = 2;
  const token = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * vocabSize);
  };
  const isLearned = (at: number): number => ((at % columns) >= (1 - share) * columns ? 1 : 0);
  return new PackedDataset('even', {
    lengths: new Int32Array(rows).fill(columns),
    ids: Int32Array.from({ length: rows * columns }, token),
    learned: Uint8Array.from({ length: rows * columns }, (_, at) => isLearned(at)),
  });
}
