import { invariant, TunefleetError } from '@tunefleet/foundation';
import type { TokenisedDataset } from '@tunefleet/ml-data';
import type { CausalLm } from '@tunefleet/ml-models';
import { headOf } from '@tunefleet/ml-nn';
import { gradients, type Tensor } from '@tunefleet/ml-tensor';
import type { DropoutKey, Tuner } from '@tunefleet/ml-tuners';
import { adamWUpdate, clipFactor, gradientNorm, type AdamWGroup } from './adamw';
import { planEpoch, planPass, stepsPerEpoch, type MicroBatch, type StepPlan } from './batch-plan';
import { collate, labelled, type TrainingBatch } from './collate';
import { examplesOf, groupLengths, nextToken, type Objective, type PassLoss } from './objective';
import { optimiserGroups } from './optimiser-groups';
import { pairsPerTokenOf } from './pairs-per-token';
import { ParameterViews } from './parameter-views';
import { learningRateAt, warmupStepsOf, type Schedule } from './schedule';
import type { Batching, TrainingSettings } from './settings';
import { StemCache } from './stem-cache';
import type { TrainerState } from './trainer-state';
import { trainingHook } from './training-hook';

/** Asked before every pass through the model; true ends the call early. May hand the event loop a turn. */
export type StopCheck = () => Promise<boolean> | boolean;

export interface TrainerOptions {
  readonly model: CausalLm;
  readonly tuner: Tuner;
  readonly dataset: TokenisedDataset;
  readonly settings: TrainingSettings;
  readonly batching: Batching;
  /** Default: cross entropy of every token that carries loss. */
  readonly objective?: Objective;
  /** `startState`, or what a checkpoint held. Changed in place by every step. */
  readonly state: TrainerState;
}

export interface StepResult {
  /** Number of this step, from 1. */
  readonly step: number;
  /** From 0. */
  readonly epoch: number;
  /** Mean over the step's loss tokens, or what else the objective counts, before the update. */
  readonly loss: number;
  /** Before clipping. */
  readonly gradNorm: number;
  readonly learningRate: number;
  /** Without padding. */
  readonly tokens: number;
  readonly lossTokens: number;
  /** Loss tokens that were the likeliest; null where the objective does not count them. */
  readonly correct: number | null;
  /** Further means of the objective's, by name. */
  readonly means: Readonly<Record<string, number>>;
  readonly seconds: number;
}

export interface ValidationResult {
  /** Mean over all loss tokens, or what else the objective counts. */
  readonly loss: number;
  readonly tokens: number;
  readonly lossTokens: number;
  readonly correct: number | null;
  readonly means: Readonly<Record<string, number>>;
  readonly seconds: number;
}

/** Separates the dropout keys of steps; no step has more micro-batches. */
const MICRO_BATCHES_MAX = 256;

/**
 * Trains a tuner's values on one model. Between calls it holds nothing on the device.
 * The first step of a process takes several times as long as later ones: kernels are made and memory is mapped.
 */
export class Trainer {
  readonly stepsPerEpoch: number;
  readonly totalSteps: number;
  readonly #options: TrainerOptions;
  readonly #schedule: Schedule;
  readonly #pairsPerToken: number;
  readonly #objective: Objective;
  readonly #groups: readonly AdamWGroup[];
  readonly #stems = new Map<TokenisedDataset, StemCache>();
  #plan: { readonly epoch: number; readonly steps: readonly StepPlan[] } | null = null;

  constructor(options: TrainerOptions) {
    const { settings, dataset, tuner, state } = options;
    invariant(dataset.length > 0, 'training needs at least one example');
    invariant(settings.batchSize <= MICRO_BATCHES_MAX, `a batch has at most ${MICRO_BATCHES_MAX} examples`);
    invariant(state.values.length === tuner.parameterCount, `${state.values.length} values for a tuner of ${tuner.parameterCount} parameters`);
    this.#options = options;
    this.#objective = options.objective ?? nextToken;
    this.stepsPerEpoch = stepsPerEpoch(dataset.length / this.#objective.groupSize, settings.batchSize);
    this.totalSteps = this.stepsPerEpoch * settings.epochs;
    this.#groups = optimiserGroups(tuner.parameters, settings.learningRate);
    this.#pairsPerToken = pairsPerTokenOf(options.model);
    const warmupSteps = warmupStepsOf(this.totalSteps, settings.warmupRatio);
    this.#schedule = { name: settings.schedule, learningRate: settings.learningRate, totalSteps: this.totalSteps, warmupSteps };
  }

  get state(): Readonly<TrainerState> {
    return this.#options.state;
  }

  get finished(): boolean {
    return this.state.step >= this.totalSteps;
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
    invariant(!this.finished, 'the run is over');
    const started = performance.now();
    const { state, settings, model, tuner, dataset } = this.#options;
    const epoch = Math.floor(state.step / this.stepsPerEpoch);
    const batches = this.#stepPlan(epoch).microBatches.map((micro) => this.#collate(dataset, micro));
    const units = sum(batches, (batch) => this.#objective.unitsOf(batch));
    const tokens = sum(batches, (batch) => batch.tokenCount);
    const lossTokens = sum(batches, (batch) => batch.lossTokens);
    let gradient: Float32Array | null = null;
    const totals = new Totals();
    using views = new ParameterViews(model.device, tuner.parameters, state.values);
    for (const [index, batch] of batches.entries()) {
      if (await shouldStop()) return null;
      const stems = this.#stemsOf(dataset);
      if (!(await fillStems(stems, batch, shouldStop))) return null;
      const key: DropoutKey = [settings.seed, state.step * MICRO_BATCHES_MAX + index];
      const part = this.#trainingPass(batch, stems, views, key, 1 / Math.max(1, units));
      totals.add(part);
      gradient = gradient === null ? part.gradient : addInto(gradient, part.gradient);
    }
    invariant(gradient, 'a step without micro-batches');
    const { loss, correct } = totals;
    const gradNorm = gradientNorm(gradient);
    const learningRate = learningRateAt(this.#schedule, state.step);
    this.#requireFinite(loss, gradNorm);
    adamWUpdate(state.values, gradient, state.moments, { groups: this.#groups, learningRate, weightDecay: settings.weightDecay, gradientScale: clipFactor(gradNorm, settings.maxGradNorm) });
    state.step++;
    state.trainedTokens += tokens;
    state.lossTokens += lossTokens;
    state.lossFirst ??= loss;
    state.lossLast = loss;
    return { step: state.step, epoch, loss, gradNorm, learningRate, tokens, lossTokens, correct, means: totals.means(units), seconds: (performance.now() - started) / 1000 };
  }

  /** Loss over a whole dataset without training. @returns null when `shouldStop` said so */
  async validate(dataset: TokenisedDataset, shouldStop: StopCheck = () => false): Promise<ValidationResult | null> {
    const started = performance.now();
    const { state, model, tuner, batching } = this.#options;
    const total = { units: 0, tokens: 0, lossTokens: 0 };
    const totals = new Totals();
    using views = new ParameterViews(model.device, tuner.parameters, state.values);
    for (const micro of planPass(groupLengths(dataset.lengths, this.#objective.groupSize), batching.microBatchSize)) {
      if (await shouldStop()) return null;
      const batch = this.#collate(dataset, micro);
      const stems = this.#stemsOf(dataset);
      if (!(await fillStems(stems, batch, shouldStop))) return null;
      totals.add(this.#plainPass(batch, dataset, stems, views));
      total.units += this.#objective.unitsOf(batch);
      total.tokens += batch.tokenCount;
      total.lossTokens += batch.lossTokens;
    }
    const { units, ...counts } = total;
    return { ...counts, loss: totals.loss / Math.max(1, units), correct: totals.correct, means: totals.means(units), seconds: (performance.now() - started) / 1000 };
  }

  #collate(dataset: TokenisedDataset, groups: MicroBatch): TrainingBatch {
    const { groupSize } = this.#objective;
    return collate(dataset, examplesOf(groups, groupSize), this.#pairsPerToken, groupSize);
  }

  #stepPlan(epoch: number): StepPlan {
    const { dataset, settings, batching, state } = this.#options;
    if (this.#plan?.epoch !== epoch) {
      const { seed, batchSize } = settings;
      this.#plan = { epoch, steps: planEpoch({ lengths: groupLengths(dataset.lengths, this.#objective.groupSize), seed, epoch, batchSize, microBatchSize: batching.microBatchSize }) };
    }
    const plan = this.#plan.steps[state.step % this.stepsPerEpoch];
    invariant(plan, `epoch ${epoch} has no step ${state.step % this.stepsPerEpoch}`);
    return plan;
  }

  /** What the blocks give the examples of a dataset; null where that is not kept. Groups are the passes of the first epoch, which so runs as it would without. */
  #stemsOf(dataset: TokenisedDataset): StemCache | null {
    const { model, tuner, batching, settings, dataset: training } = this.#options;
    if (!batching.keepStems || !tuner.stemStates) return null;
    const known = this.#stems.get(dataset);
    if (known) return known;
    const { seed, batchSize } = settings;
    const { microBatchSize } = batching;
    const { groupSize } = this.#objective;
    const lengths = groupLengths(dataset.lengths, groupSize);
    const passes = dataset === training ? planEpoch({ lengths, seed, epoch: 0, batchSize, microBatchSize }).flatMap(({ microBatches }) => microBatches) : planPass(lengths, microBatchSize);
    const groups = passes.map((micro) => examplesOf(micro, groupSize));
    const cache = new StemCache({ model, dataset, groups, collate: (examples) => collate(dataset, examples, this.#pairsPerToken, groupSize), states: tuner.stemStates });
    this.#stems.set(dataset, cache);
    return cache;
  }

  #trainingPass(batch: TrainingBatch, cache: StemCache | null, views: ParameterViews, key: DropoutKey, scale: number): PassSums & { gradient: Float32Array } {
    const { model, batching, dataset } = this.#options;
    const { device } = model;
    return device.scope(() => {
      const adapter = trainingHook(model, this.#options, views.tensors, { batch, dropout: key });
      const stems = batch.lossTokens > 0 ? (cache?.stemsOf(batch) ?? null) : null;
      const { result, gradients: parts } = gradients(device, views.tensors, () => {
        const { rows, labels } = labelled(batch.labels);
        const hidden = model.forward(batch.tokens, { adapter, recomputeBlocks: batching.recomputeBlocks, outputRows: rows, stems });
        return this.#objective.loss({ hidden, head: headOf(model, adapter), labels, batch, dataset, scale });
      });
      return { ...readSums(result), gradient: views.readFlat(device, parts) };
    });
  }

  #plainPass(batch: TrainingBatch, dataset: TokenisedDataset, cache: StemCache | null, views: ParameterViews): PassSums {
    const { model, tuner } = this.#options;
    return model.device.scope(() => {
      const { rows, labels } = labelled(batch.labels);
      const stems = batch.lossTokens > 0 ? (cache?.stemsOf(batch) ?? null) : null;
      const adapter = tuner.bind(model, views.tensors, null);
      const hidden = model.forward(batch.tokens, { adapter, outputRows: rows, stems });
      return readSums(this.#objective.loss({ hidden, head: headOf(model, adapter), labels, batch, dataset, scale: 1 }));
    });
  }

  #requireFinite(loss: number, gradNorm: number): void {
    if (Number.isFinite(loss) && Number.isFinite(gradNorm)) return;
    const { step } = this.state;
    const { learningRate } = this.#options.settings;
    const what = Number.isFinite(loss) ? `the gradient norm is ${gradNorm}` : `the loss is ${loss}`;
    const advice =
      step === 0
        ? 'It was so before any update, so the base model or its compute dtype is at fault: try compute_dtype "f32" or another base model'
        : `Lower the learning rate (now ${learningRate}; try ${Number((learningRate / 10).toPrecision(2))}), lengthen the warm-up, or lower max_grad_norm`;
    throw new TunefleetError('numerical', `training failed at step ${step + 1} of ${this.totalSteps}: ${what}. ${advice}`, {
      reason: 'not_finite',
      param: 'learning_rate',
      details: { step: step + 1, loss: String(loss), gradNorm: String(gradNorm), learningRate },
    });
  }
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

type PassSums = { readonly loss: number; readonly correct: number | null } & Pick<PassLoss, 'sums'>;

function readSums({ loss, correct, sums }: PassLoss): PassSums {
  return { loss: readScalar(loss), correct: correct === null ? null : readScalar(correct), sums };
}

/** Over the passes of a step or a validation. */
class Totals {
  loss = 0;
  correct: number | null = null;
  readonly #sums = new Map<string, number>();

  add({ loss, correct, sums }: PassSums): void {
    this.loss += loss;
    if (correct !== null) this.correct = (this.correct ?? 0) + correct;
    for (const [name, value] of Object.entries(sums)) this.#sums.set(name, (this.#sums.get(name) ?? 0) + value);
  }

  means(units: number): Readonly<Record<string, number>> {
    return Object.fromEntries([...this.#sums].map(([name, value]) => [name, value / Math.max(1, units)]));
  }
}

function addInto(total: Float32Array, part: Float32Array): Float32Array {
  for (let i = 0; i < total.length; i++) total[i] = (total[i] as number) + (part[i] as number);
  return total;
}

function readScalar(x: Tensor): number {
  return x.device.readFloats(x)[0] ?? NaN;
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}
