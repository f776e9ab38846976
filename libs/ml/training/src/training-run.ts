import { invariant, TunefleetError } from '@tunefleet/foundation';
import type { TokenisedDataset } from '@tunefleet/ml-data';
import type { CausalLm } from '@tunefleet/ml-models';
import type { DropoutKey, Tuner } from '@tunefleet/ml-tuners';
import { adamWUpdate, clipFactor, gradientNorm, type AdamWGroup } from './adamw';
import { planEpoch, planPass, stepsPerEpoch, type MicroBatch, type StepPlan } from './batch-plan';
import { collate, type TrainingBatch } from './collate';
import { examplesOf, groupLengths, nextToken, type Objective } from './objective';
import { optimiserGroups } from './optimiser-groups';
import { pairsPerTokenOf } from './pairs-per-token';
import type { Totals } from './pass-sums';
import { learningRateAt, warmupStepsOf, type Schedule } from './schedule';
import type { Batching, TrainingSettings } from './settings';
import type { TrainerState } from './trainer-state';

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

/** One pass of a step. */
export interface PlannedPass {
  readonly batch: TrainingBatch;
  readonly dropout: DropoutKey;
  /** Factor of the loss: 1 / (units of the step). */
  readonly scale: number;
}

export interface PlannedStep {
  /** From 0. */
  readonly epoch: number;
  readonly passes: readonly PlannedPass[];
  /** What the loss is a mean of. */
  readonly units: number;
  readonly tokens: number;
  readonly lossTokens: number;
}

/** Separates the dropout keys of steps; no step has more micro-batches. */
const MICRO_BATCHES_MAX = 256;

/** What a run does before and after its passes through the model: which examples, and what becomes of their gradient. Touches no device. */
export class TrainingRun {
  readonly stepsPerEpoch: number;
  readonly totalSteps: number;
  readonly objective: Objective;
  readonly #options: TrainerOptions;
  readonly #schedule: Schedule;
  readonly #pairsPerToken: number;
  readonly #groups: readonly AdamWGroup[];
  #plan: { readonly epoch: number; readonly steps: readonly StepPlan[] } | null = null;

  constructor(options: TrainerOptions) {
    const { settings, dataset, tuner, state, objective = nextToken } = options;
    invariant(dataset.length > 0, 'training needs at least one example');
    invariant(settings.batchSize <= MICRO_BATCHES_MAX, `a batch has at most ${MICRO_BATCHES_MAX} examples`);
    invariant(state.values.length === tuner.parameterCount, `${state.values.length} values for a tuner of ${tuner.parameterCount} parameters`);
    this.#options = options;
    this.objective = objective;
    this.stepsPerEpoch = stepsPerEpoch(dataset.length / objective.groupSize, settings.batchSize);
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

  /** The next step, a function of data, settings and the number of steps done. */
  planStep(): PlannedStep {
    invariant(!this.finished, 'the run is over');
    const { dataset, settings, state } = this.#options;
    const epoch = Math.floor(state.step / this.stepsPerEpoch);
    const plan = this.#stepsOf(epoch)[state.step % this.stepsPerEpoch];
    invariant(plan && plan.microBatches.length > 0, `epoch ${epoch} has no step ${state.step % this.stepsPerEpoch}, or one without micro-batches`);
    const batches = plan.microBatches.map((micro) => this.collate(dataset, micro));
    const units = sum(batches, (batch) => this.objective.unitsOf(batch));
    return {
      epoch,
      passes: batches.map((batch, index) => ({ batch, dropout: [settings.seed, state.step * MICRO_BATCHES_MAX + index], scale: 1 / Math.max(1, units) })),
      units,
      tokens: sum(batches, (batch) => batch.tokenCount),
      lossTokens: sum(batches, (batch) => batch.lossTokens),
    };
  }

  /**
   * Updates the state by what the passes of the step it planned gave.
   * @throws TunefleetError `numerical` when the loss or the gradient is not finite: the state is as before
   */
  completeStep({ epoch, units, tokens, lossTokens }: PlannedStep, totals: Totals): Omit<StepResult, 'seconds'> {
    const { state, settings } = this.#options;
    const { loss, correct, gradient } = totals;
    invariant(gradient, 'a step without passes');
    const gradNorm = gradientNorm(gradient);
    const learningRate = learningRateAt(this.#schedule, state.step);
    this.#requireFinite(loss, gradNorm);
    adamWUpdate(state.values, gradient, state.moments, { groups: this.#groups, learningRate, weightDecay: settings.weightDecay, gradientScale: clipFactor(gradNorm, settings.maxGradNorm) });
    state.step++;
    state.trainedTokens += tokens;
    state.lossTokens += lossTokens;
    state.lossFirst ??= loss;
    state.lossLast = loss;
    return { step: state.step, epoch, loss, gradNorm, learningRate, tokens, lossTokens, correct, means: totals.means(units) };
  }

  collate(dataset: TokenisedDataset, groups: MicroBatch): TrainingBatch {
    return this.collateExamples(dataset, examplesOf(groups, this.objective.groupSize));
  }

  collateExamples(dataset: TokenisedDataset, examples: Int32Array): TrainingBatch {
    return collate(dataset, examples, this.#pairsPerToken, this.objective.groupSize);
  }

  /** Groups of examples that go through the model together: those of the first epoch, or for other data the whole set once. */
  passesOver(dataset: TokenisedDataset): readonly MicroBatch[] {
    const { batching, dataset: training } = this.#options;
    if (dataset === training) return this.#stepsOf(0).flatMap(({ microBatches }) => microBatches);
    return planPass(groupLengths(dataset.lengths, this.objective.groupSize), batching.microBatchSize);
  }

  #stepsOf(epoch: number): readonly StepPlan[] {
    const { dataset, settings, batching } = this.#options;
    if (this.#plan?.epoch !== epoch) {
      const { seed, batchSize } = settings;
      this.#plan = { epoch, steps: planEpoch({ lengths: groupLengths(dataset.lengths, this.objective.groupSize), seed, epoch, batchSize, microBatchSize: batching.microBatchSize }) };
    }
    return this.#plan.steps;
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

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}
