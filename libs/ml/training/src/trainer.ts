import { invariant, TunefleetError } from '@tunefleet/foundation';
import type { TokenisedDataset } from '@tunefleet/ml-data';
import type { CausalLm } from '@tunefleet/ml-models';
import { headOf } from '@tunefleet/ml-nn';
import { gradients, headCrossEntropy, type Tensor } from '@tunefleet/ml-tensor';
import type { DropoutKey, Tuner } from '@tunefleet/ml-tuners';
import { adamWUpdate, clipFactor, gradientNorm, type AdamWGroup } from './adamw';
import { planEpoch, planPass, stepsPerEpoch, type StepPlan } from './batch-plan';
import { collate, labelled, type TrainingBatch } from './collate';
import { optimiserGroups } from './optimiser-groups';
import { ParameterViews } from './parameter-views';
import { learningRateAt, warmupStepsOf, type Schedule } from './schedule';
import type { Batching, TrainingSettings } from './settings';
import { StemCache } from './stem-cache';
import type { TrainerState } from './trainer-state';

/** Asked before every pass through the model; true ends the call early. May hand the event loop a turn. */
export type StopCheck = () => Promise<boolean> | boolean;

export interface TrainerOptions {
  readonly model: CausalLm;
  readonly tuner: Tuner;
  readonly dataset: TokenisedDataset;
  readonly settings: TrainingSettings;
  readonly batching: Batching;
  /** `startState`, or what a checkpoint held. Changed in place by every step. */
  readonly state: TrainerState;
}

export interface StepResult {
  /** Number of this step, from 1. */
  readonly step: number;
  /** From 0. */
  readonly epoch: number;
  /** Mean over the step's loss tokens, before the update. */
  readonly loss: number;
  /** Before clipping. */
  readonly gradNorm: number;
  readonly learningRate: number;
  /** Without padding. */
  readonly tokens: number;
  readonly lossTokens: number;
  /** Loss tokens that were the likeliest. */
  readonly correct: number;
  readonly seconds: number;
}

export interface ValidationResult {
  /** Mean over all loss tokens. */
  readonly loss: number;
  readonly tokens: number;
  readonly lossTokens: number;
  readonly correct: number;
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
  readonly #groups: readonly AdamWGroup[];
  readonly #stems = new Map<TokenisedDataset, StemCache>();
  #plan: { readonly epoch: number; readonly steps: readonly StepPlan[] } | null = null;

  constructor(options: TrainerOptions) {
    const { settings, dataset, tuner, state } = options;
    invariant(dataset.length > 0, 'training needs at least one example');
    invariant(settings.batchSize <= MICRO_BATCHES_MAX, `a batch has at most ${MICRO_BATCHES_MAX} examples`);
    invariant(state.values.length === tuner.parameterCount, `${state.values.length} values for a tuner of ${tuner.parameterCount} parameters`);
    this.#options = options;
    this.stepsPerEpoch = stepsPerEpoch(dataset.length, settings.batchSize);
    this.totalSteps = this.stepsPerEpoch * settings.epochs;
    this.#groups = optimiserGroups(tuner.parameters, settings.learningRate);
    this.#pairsPerToken = pairsPerToken(options.model);
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
    const batches = this.#stepPlan(epoch).microBatches.map((micro) => collate(dataset, micro, this.#pairsPerToken));
    const tokens = sum(batches, (batch) => batch.tokenCount);
    const lossTokens = sum(batches, (batch) => batch.lossTokens);
    let gradient: Float32Array | null = null;
    let loss = 0;
    let correct = 0;
    using views = new ParameterViews(model.device, tuner.parameters, state.values);
    for (const [index, batch] of batches.entries()) {
      if (await shouldStop()) return null;
      const stems = this.#stemsOf(dataset);
      if (!(await fillStems(stems, batch, shouldStop))) return null;
      const key: DropoutKey = [settings.seed, state.step * MICRO_BATCHES_MAX + index];
      const part = this.#trainingPass(batch, stems, views, key, 1 / Math.max(1, lossTokens));
      loss += part.loss;
      correct += part.correct;
      gradient = gradient === null ? part.gradient : addInto(gradient, part.gradient);
    }
    invariant(gradient, 'a step without micro-batches');
    const gradNorm = gradientNorm(gradient);
    const learningRate = learningRateAt(this.#schedule, state.step);
    this.#requireFinite(loss, gradNorm);
    adamWUpdate(state.values, gradient, state.moments, { groups: this.#groups, learningRate, weightDecay: settings.weightDecay, gradientScale: clipFactor(gradNorm, settings.maxGradNorm) });
    state.step++;
    state.trainedTokens += tokens;
    state.lossTokens += lossTokens;
    state.lossFirst ??= loss;
    state.lossLast = loss;
    return { step: state.step, epoch, loss, gradNorm, learningRate, tokens, lossTokens, correct, seconds: (performance.now() - started) / 1000 };
  }

  /** Loss over a whole dataset without training. @returns null when `shouldStop` said so */
  async validate(dataset: TokenisedDataset, shouldStop: StopCheck = () => false): Promise<ValidationResult | null> {
    const started = performance.now();
    const { state, model, tuner, batching } = this.#options;
    const total = { loss: 0, tokens: 0, lossTokens: 0, correct: 0 };
    using views = new ParameterViews(model.device, tuner.parameters, state.values);
    for (const micro of planPass(dataset.lengths, batching.microBatchSize)) {
      if (await shouldStop()) return null;
      const batch = collate(dataset, micro, this.#pairsPerToken);
      const stems = this.#stemsOf(dataset);
      if (!(await fillStems(stems, batch, shouldStop))) return null;
      const [loss, correct] = this.#plainPass(batch, stems, views);
      total.loss += loss;
      total.correct += correct;
      total.tokens += batch.tokenCount;
      total.lossTokens += batch.lossTokens;
    }
    return { ...total, loss: total.loss / Math.max(1, total.lossTokens), seconds: (performance.now() - started) / 1000 };
  }

  #stepPlan(epoch: number): StepPlan {
    const { dataset, settings, batching, state } = this.#options;
    if (this.#plan?.epoch !== epoch) {
      const { seed, batchSize } = settings;
      this.#plan = { epoch, steps: planEpoch({ lengths: dataset.lengths, seed, epoch, batchSize, microBatchSize: batching.microBatchSize }) };
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
    const groups = dataset === training ? planEpoch({ lengths: dataset.lengths, seed, epoch: 0, batchSize, microBatchSize }).flatMap(({ microBatches }) => microBatches) : planPass(dataset.lengths, microBatchSize);
    const cache = new StemCache({ model, dataset, groups, pairsPerToken: this.#pairsPerToken, states: tuner.stemStates });
    this.#stems.set(dataset, cache);
    return cache;
  }

  #trainingPass(batch: TrainingBatch, cache: StemCache | null, views: ParameterViews, key: DropoutKey, scale: number): { loss: number; correct: number; gradient: Float32Array } {
    const { model, tuner, batching } = this.#options;
    const { device } = model;
    return device.scope(() => {
      const adapter = tuner.bind(model, views.tensors, key);
      const stems = batch.lossTokens > 0 ? (cache?.stemsOf(batch) ?? null) : null;
      const { result, gradients: parts } = gradients(device, views.tensors, () => {
        const { rows, labels } = labelled(batch.labels);
        const hidden = model.forward(batch.tokens, { adapter, recomputeBlocks: batching.recomputeBlocks, outputRows: rows, stems });
        return headCrossEntropy(hidden, headOf(model, adapter), labels, { scale });
      });
      return { loss: readScalar(result.loss), correct: readScalar(result.correct), gradient: views.readFlat(device, parts) };
    });
  }

  /** @returns sum of the loss, number of correct tokens */
  #plainPass(batch: TrainingBatch, cache: StemCache | null, views: ParameterViews): [loss: number, correct: number] {
    const { model, tuner } = this.#options;
    return model.device.scope(() => {
      const { rows, labels } = labelled(batch.labels);
      const stems = batch.lossTokens > 0 ? (cache?.stemsOf(batch) ?? null) : null;
      const adapter = tuner.bind(model, views.tensors, null);
      const hidden = model.forward(batch.tokens, { adapter, outputRows: rows, stems });
      const { loss, correct } = headCrossEntropy(hidden, headOf(model, adapter), labels, { scale: 1 });
      return [readScalar(loss), readScalar(correct)];
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

/**
 * Query-key pairs that cost as much as a token: a token takes 4 operations per weight of its block, forward and back; a pair 14 per channel, which run slower for
 * their softmax and copies (1,380 pairs measured for SmolLM2-135M on two cores).
 */
function pairsPerToken({ projections, layers, hiddenSize }: CausalLm): number {
  const weights = projections.reduce((sum, { inSize, outSize }) => sum + inSize * outSize, 0);
  return (4 * weights) / layers / (18 * hiddenSize);
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
