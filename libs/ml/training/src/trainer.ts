import { invariant } from '@tunefleet/foundation';
import type { TokenisedDataset } from '@tunefleet/ml-data';
import type { ForwardOptions } from '@tunefleet/ml-models';
import { headOf } from '@tunefleet/ml-nn';
import { gradients, type Tensor } from '@tunefleet/ml-tensor';
import { planPass } from './batch-plan';
import { labelled, type TrainingBatch } from './collate';
import { examplesOf, groupLengths } from './objective';
import { ParameterViews } from './parameter-views';
import { readSums, Totals, type PassSums } from './pass-sums';
import { StemCache, type StemUse } from './stem-cache';
import { StemStore } from './stem-store';
import type { TrainerState } from './trainer-state';
import { trainingHook } from './training-hook';
import { TrainingRun, type PlannedPass, type StepResult, type TrainerOptions } from './training-run';

/** Asked before every pass through the model; true ends the call early. May hand the event loop a turn. */
export type StopCheck = () => Promise<boolean> | boolean;

export interface ValidationResult {
  /** Mean over all loss tokens, or what else the objective counts. */
  readonly loss: number;
  readonly tokens: number;
  readonly lossTokens: number;
  readonly correct: number | null;
  readonly means: Readonly<Record<string, number>>;
  readonly seconds: number;
}

/**
 * Trains a tuner's values on one model. Between calls it holds nothing on the device.
 * The first step of a process takes several times as long as later ones: kernels are made and memory is mapped.
 */
export class Trainer {
  readonly run: TrainingRun;
  readonly #stems = new Map<TokenisedDataset, StemCache>();
  #store: StemStore | null = null;

  constructor(readonly options: TrainerOptions) {
    invariant(!options.batching.keptStems || options.settings.neftuneNoiseAlpha === undefined, 'noise on the embeddings is new in every epoch: nothing of it can be kept');
    this.run = new TrainingRun(options);
  }

  get stepsPerEpoch(): number {
    return this.run.stepsPerEpoch;
  }

  get totalSteps(): number {
    return this.run.totalSteps;
  }

  get state(): Readonly<TrainerState> {
    return this.run.state;
  }

  get finished(): boolean {
    return this.run.finished;
  }

  /** Whether the step done last ended an epoch. */
  get atEpochEnd(): boolean {
    return this.state.step > 0 && this.state.step % this.stepsPerEpoch === 0;
  }

  /**
   * One optimiser step. Stopped early it changes nothing.
   * @returns null when `shouldStop` said so
   * @throws TunefleetError `numerical` when the loss or the gradient is not finite (the state is as before the step), `out_of_device_memory`
   */
  async trainStep(shouldStop: StopCheck = () => false): Promise<StepResult | null> {
    const started = performance.now();
    const { state, model, tuner, dataset } = this.options;
    const step = this.run.planStep();
    const totals = new Totals();
    using views = new ParameterViews(model.device, tuner.parameters, state.values);
    for (const pass of step.passes) {
      if (await shouldStop()) return null;
      const stems = this.#stemsOf(dataset);
      if (!(await fillStems(stems, pass.batch, shouldStop))) return null;
      totals.add(this.#trainingPass(pass, stems, views));
    }
    return { ...this.run.completeStep(step, totals), seconds: (performance.now() - started) / 1000 };
  }

  /** Loss over a whole dataset without training. @returns null when `shouldStop` said so */
  async validate(dataset: TokenisedDataset, shouldStop: StopCheck = () => false): Promise<ValidationResult | null> {
    const started = performance.now();
    const { state, model, tuner, batching } = this.options;
    const { objective } = this.run;
    const total = { units: 0, tokens: 0, lossTokens: 0 };
    const totals = new Totals();
    using views = new ParameterViews(model.device, tuner.parameters, state.values);
    for (const micro of planPass(groupLengths(dataset.lengths, objective.groupSize), batching.microBatchSize)) {
      if (await shouldStop()) return null;
      const batch = this.run.collate(dataset, micro);
      const stems = this.#stemsOf(dataset);
      if (!(await fillStems(stems, batch, shouldStop))) return null;
      totals.add(this.#plainPass(batch, dataset, stems, views));
      total.units += objective.unitsOf(batch);
      total.tokens += batch.tokenCount;
      total.lossTokens += batch.lossTokens;
    }
    const { units, ...counts } = total;
    return { ...counts, loss: totals.loss / Math.max(1, units), correct: totals.correct, means: totals.means(units), seconds: (performance.now() - started) / 1000 };
  }

  /** What the blocks give the examples of a dataset; null where that is not kept. Groups are the passes of the first epoch, which so runs as it would without. */
  #stemsOf(dataset: TokenisedDataset): StemCache | null {
    const { model, tuner, batching, dataset: training } = this.options;
    const { keptStems: kept } = batching;
    if (!kept || (!tuner.stemStates && kept.untouchedBlocks === 0)) return null;
    const known = this.#stems.get(dataset);
    if (known) return known;
    // Training data get room first, whatever a resumed run begins with.
    if (dataset !== training) this.#stemsOf(training);
    const store = (this.#store ??= new StemStore(kept));
    const { run } = this;
    const { groupSize } = run.objective;
    const groups = run.passesOver(dataset).map((micro) => examplesOf(micro, groupSize));
    const cache = new StemCache({ model, dataset, groups, collate: (examples) => run.collateExamples(dataset, examples), ...stemUse(this.options), store });
    this.#stems.set(dataset, cache);
    return cache;
  }

  /** Lets go of what is kept between epochs. */
  [Symbol.dispose](): void {
    this.#stems.clear();
    this.#store?.[Symbol.dispose]();
    this.#store = null;
  }

  /** What of a pass' forward need not be computed. @returns tensors of the current scope */
  #given(batch: TrainingBatch, cache: StemCache | null): Pick<ForwardOptions, 'stems' | 'entering'> {
    const stems = batch.lossTokens > 0 ? (cache?.stemsOf(batch) ?? null) : null;
    const { tuner, batching } = this.options;
    if (stems === null) return {};
    if (tuner.stemStates) return { stems };
    const layer = batching.keptStems?.untouchedBlocks as number;
    return { entering: { layer, hidden: stems[layer] as Tensor } };
  }

  #trainingPass(pass: PlannedPass, cache: StemCache | null, views: ParameterViews): PassSums {
    const { batch, scale } = pass;
    const { model, batching, dataset } = this.options;
    const { device } = model;
    return device.scope(() => {
      const adapter = trainingHook(model, this.options, views.tensors, pass);
      const given = this.#given(batch, cache);
      const { result, gradients: parts } = gradients(device, views.tensors, () => {
        const { rows, labels } = labelled(batch.labels);
        const hidden = model.forward(batch.tokens, { adapter, recomputeBlocks: batching.recomputeBlocks, outputRows: rows, ...given });
        return this.run.objective.loss({ hidden, head: headOf(model, adapter), labels, batch, dataset, scale });
      });
      return { ...readSums(result), gradient: views.readFlat(device, parts) };
    });
  }

  #plainPass(batch: TrainingBatch, dataset: TokenisedDataset, cache: StemCache | null, views: ParameterViews): PassSums {
    const { model, tuner } = this.options;
    return model.device.scope(() => {
      const { rows, labels } = labelled(batch.labels);
      const given = this.#given(batch, cache);
      const adapter = tuner.bind(model, views.tensors, null);
      const hidden = model.forward(batch.tokens, { adapter, outputRows: rows, ...given });
      return readSums(this.run.objective.loss({ hidden, head: headOf(model, adapter), labels, batch, dataset, scale: 1 }));
    });
  }
}

/** A bypass, and what lies behind the last block, works on every token by itself; attention of a block sees all. */
export function stemUse({ tuner, batching, model }: Pick<TrainerOptions, 'tuner' | 'batching' | 'model'>): StemUse {
  if (tuner.stemStates) return { states: tuner.stemStates, rows: 'learned' };
  const { untouchedBlocks = 0 } = batching.keptStems ?? {};
  return { states: [untouchedBlocks], rows: untouchedBlocks === model.layers ? 'learned' : 'all' };
}

/** @returns false when `shouldStop` said so */
async function fillStems(cache: StemCache | null, batch: TrainingBatch, shouldStop: StopCheck): Promise<boolean> {
  for (const [index, group] of (cache?.missing(batch) ?? []).entries()) {
    // Before the first of them the caller has asked.
    if (index > 0 && (await shouldStop())) return false;
    cache?.fill(group);
  }
  return true;
}
