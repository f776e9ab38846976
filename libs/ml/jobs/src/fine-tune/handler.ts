import { join } from 'node:path';
import type { FineTuneResult, FineTuneSpec } from '@tunefleet/contracts';
import { errorCode, invariant } from '@tunefleet/foundation';
import { saveCheckpoint, Trainer, type Batching, type StepResult } from '@tunefleet/ml-training';
import { precisionText } from '../runtime/engine-resources';
import type { JobContext, JobOutcome } from '../runtime/job-context';
import type { PeakSince } from '../runtime/peak-memory';
import { ProgressMeter } from '../runtime/progress-meter';
import type { StepSeat } from '../runtime/step-exchange';
import { yieldToEventLoop } from '../runtime/stop-request';
import { writeFolder } from '../runtime/written-folder';
import { openRun, prepareRun, type PreparedRun } from './prepare';

type Context = JobContext<FineTuneSpec>;

/**
 * Trains an adapter. Metrics come with every step; checkpoints and validation at epoch ends and as often as the spec asks. The result folder is the adapter
 * in PEFT's format; so is every checkpoint, beside the trainer's state.
 */
export async function runFineTune(context: Context): Promise<JobOutcome<FineTuneResult>> {
  using processPeak = context.engine.processPeak.start();
  const start = await openRun(context);
  using _borrowed = start.opened;
  using run = new FineTuneRun(context, await prepareRun(context, start), processPeak);
  return await run.run();
}

class FineTuneRun implements Disposable {
  readonly #meter: ProgressMeter;
  readonly #startedMs: number;
  readonly #seat: StepSeat;
  readonly #devicePeak: PeakSince;
  #trainer: Trainer;
  #batching: Batching;
  /** Latest value of every train and validation metric, for checkpoints. */
  #metrics: Record<string, number> = {};
  #checkpointedStep: number;
  #phase: 'train' | 'validate' = 'train';
  #validated: { readonly step: number; readonly loss: number } | null;
  /** The first step of an attempt warms up and is left out of the speed, unless it stays the only one. */
  #speed = { steps: 0, tokens: 0, seconds: 0 };

  constructor(
    private readonly context: Context,
    private readonly prepared: PreparedRun,
    private readonly processPeak: PeakSince,
  ) {
    const { batching, state, notes, shares, sharedPassBytes } = prepared;
    const { engine, events } = context;
    this.#batching = batching;
    this.#trainer = this.#newTrainer();
    this.#seat = engine.steps.enter({
      shares,
      bytes: sharedPassBytes,
      onShared: (others) => events.log('info', `steps are made together with those of ${others === 1 ? 'another run' : `${others} other runs`} on this model from here on`),
      onNotice: (message) => events.log('warn', message),
    });
    // Loading has a peak of its own; what was foretold is that of the steps.
    this.#devicePeak = engine.devicePeak.start();
    this.#meter = new ProgressMeter(context.events, context.clock, this.#trainer.totalSteps);
    this.#startedMs = context.clock.monotonic();
    this.#checkpointedStep = state.step;
    const { validatedStep, validLoss } = notes;
    this.#validated = validatedStep === undefined || validLoss === undefined ? null : { step: validatedStep, loss: validLoss };
  }

  async run(): Promise<JobOutcome<FineTuneResult>> {
    this.#logStart();
    this.#meter.passesOf(this.#batching.microBatchSize, this.#trainer.state.step);
    // A run that was stopped while it validated does that first.
    if (!(await this.#validateIfDue())) return this.#stopped();
    while (!this.#trainer.finished) {
      const step = await this.#trainStep();
      if (step === null) return this.#stopped();
      this.#reportStep(step);
      if (!(await this.#validateIfDue())) return this.#stopped();
      if (this.#isDue(this.context.spec.checkpointEverySteps)) await this.#checkpoint();
    }
    return this.#succeeded();
  }

  [Symbol.dispose](): void {
    this.#seat[Symbol.dispose]();
    this.#devicePeak[Symbol.dispose]();
    this.#trainer[Symbol.dispose]();
  }

  /** @returns null when a stop was asked for */
  async #trainStep(): Promise<StepResult | null> {
    for (;;) {
      try {
        return await this.#seat.step(this.#trainer, this.#stopWanted);
      } catch (error) {
        const { microBatchSize } = this.#batching;
        if (errorCode(error) !== 'out_of_device_memory' || microBatchSize === 1) throw error;
        // The failed step changed nothing, so it can be made again in smaller passes.
        this.#batching = { ...this.#batching, microBatchSize: Math.floor(microBatchSize / 2) };
        this.#trainer[Symbol.dispose]();
        this.#trainer = this.#newTrainer();
        this.#meter.passesOf(this.#batching.microBatchSize, this.#trainer.state.step);
        this.context.events.log('warn', `the device ran out of memory with ${microBatchSize} rows of the longest example per pass; going on with ${this.#batching.microBatchSize}`);
      }
    }
  }

  #reportStep(step: StepResult): void {
    const tokensPerSecond = step.tokens / step.seconds;
    const speed = this.#speed;
    if (speed.steps === 1) Object.assign(speed, { tokens: 0, seconds: 0 });
    Object.assign(speed, { steps: speed.steps + 1, tokens: speed.tokens + step.tokens, seconds: speed.seconds + step.seconds });
    const train = { train_loss: step.loss, ...tokenAccuracy('train', step), ...step.means };
    this.#metrics = { ...this.#metrics, ...train };
    this.context.events.metrics(step.step, { ...train, learning_rate: step.learningRate, grad_norm: step.gradNorm, tokens_per_second: tokensPerSecond });
    this.#meter.stepDone(step.step, 'train', step.tokens, step.seconds);
  }

  /** @returns false when a stop was asked for */
  async #validateIfDue(): Promise<boolean> {
    const { validation, state } = this.prepared;
    if (validation === null || !this.#isDue(this.context.spec.validateEverySteps) || this.#validated?.step === state.step) return true;
    this.#phase = 'validate';
    this.#meter.report(state.step, 'validate');
    const result = await this.#trainer.validate(validation, this.#stopWanted);
    this.#phase = 'train';
    if (result === null) return false;
    this.#validated = { step: state.step, loss: result.loss };
    const metrics = { valid_loss: result.loss, ...tokenAccuracy('valid', result), ...Object.fromEntries(Object.entries(result.means).map(([name, value]) => [`valid_${name}`, value])) };
    this.#metrics = { ...this.#metrics, ...metrics };
    this.context.events.metrics(state.step, metrics);
    return true;
  }

  #isDue(everySteps: number): boolean {
    const { step } = this.#trainer.state;
    return this.#trainer.atEpochEnd || (everySteps > 0 && step > 0 && step % everySteps === 0);
  }

  async #checkpoint(): Promise<void> {
    const { tuner, identity, choices, state, opened, extras } = this.prepared;
    const notes = this.#validated === null ? {} : { validatedStep: this.#validated.step, validLoss: this.#validated.loss };
    const folder = await writeFolder(join(this.context.outputDir, `ckpt-${state.step}`), async (dir) => {
      await tuner.save(state.values, dir, opened.base, opened.model);
      await saveCheckpoint(dir, { identity, choices: { ...choices, ...this.#batching }, state, notes, extras }, tuner);
    });
    this.#checkpointedStep = state.step;
    this.context.events.checkpoint(state.step, folder, { step: state.step, ...this.#metrics });
  }

  async #stopped(): Promise<JobOutcome<FineTuneResult>> {
    // Read last: a later request may have given up the checkpoint.
    const { step } = this.prepared.state;
    if (this.context.stop.wanted?.checkpoint && step > this.#checkpointedStep) await this.#checkpoint();
    this.context.events.log('info', `stopped after step ${step} of ${this.#trainer.totalSteps}`);
    return { type: 'stopped' };
  }

  async #succeeded(): Promise<JobOutcome<FineTuneResult>> {
    const { tuner, state, opened } = this.prepared;
    const { outputDir, clock } = this.context;
    const { lossFirst, lossLast } = state;
    invariant(lossFirst !== null && lossLast !== null, 'a run ends after its last step');
    this.#meter.report(state.step, 'save');
    const folder = await writeFolder(join(outputDir, 'result'), (dir) => tuner.save(state.values, dir, opened.base, opened.model));
    this.#logMemory();
    const result: FineTuneResult = {
      steps: state.step,
      trainedTokens: state.trainedTokens,
      lossTokens: state.lossTokens,
      lossFirst,
      lossLast,
      validLoss: this.#validated?.loss ?? null,
      tokensPerSecond: this.#speed.seconds > 0 ? this.#speed.tokens / this.#speed.seconds : 0,
      trainSeconds: (clock.monotonic() - this.#startedMs) / 1000,
      peakRssBytes: this.processPeak.bytes,
      peakDeviceBytes: this.#devicePeak.isShared ? 0 : this.#devicePeak.bytes,
      predictedDeviceBytes: this.prepared.predictedPeakBytes,
      computeDtype: opened.computeDtype,
      trainableParameters: tuner.parameterCount,
    };
    return { type: 'succeeded', result, folder };
  }

  #newTrainer(): Trainer {
    const { opened, tuner, training, settings, state, objective } = this.prepared;
    return new Trainer({ model: opened.model, tuner, dataset: training, settings, batching: this.#batching, objective, state });
  }

  #logStart(): void {
    const { spec, events, engine } = this.context;
    const { tuner, opened } = this.prepared;
    const { microBatchSize } = this.#batching;
    events.log(
      'info',
      `training ${tuner.parameterCount} parameters in ${precisionText(opened)} on ${engine.device.info.deviceName}: ${this.#trainer.totalSteps} steps of ${spec.batchSize} examples in passes with room for ${microBatchSize} of the longest, ` +
        `${spec.epochs} ${spec.epochs === 1 ? 'epoch' : 'epochs'}. The first step takes longer than the others`,
    );
    const { predictedPeakBytes } = this.prepared;
    const again = this.#batching.recomputeBlocks ? ', with blocks computed again in the backward pass' : '';
    events.log('info', `memory: ${megabytes(predictedPeakBytes)} MB foretold on the device at the peak${again}, ${megabytes(opened.model.weightBytes)} MB of them for the model's weights`);
  }

  #logMemory(): void {
    const { bytes, isShared } = this.#devicePeak;
    const foretold = `${megabytes(this.prepared.predictedPeakBytes)} MB were foretold${isShared ? ' for this run alone' : ''}`;
    this.context.events.log('info', `memory: ${megabytes(bytes)} MB on the device at the peak${isShared ? ', other runs included' : ''}, ${foretold}; ${megabytes(this.processPeak.bytes)} MB of the process`);
  }

  /** Asked before every pass through the model. */
  readonly #stopWanted = async (): Promise<boolean> => {
    this.#meter.passDone(this.prepared.state.step, this.#phase);
    await yieldToEventLoop();
    return this.context.stop.wanted !== null;
  };
}

function megabytes(bytes: number): string {
  return Math.ceil(bytes / 1e6).toString();
}

function tokenAccuracy(prefix: 'train' | 'valid', { correct, lossTokens }: Pick<StepResult, 'correct' | 'lossTokens'>): Record<string, number> {
  return correct === null ? {} : { [`${prefix}_mean_token_accuracy`]: correct / Math.max(1, lossTokens) };
}
