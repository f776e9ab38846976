import { errorCode, errorMessage } from '@tunefleet/foundation';
import type { Device } from '@tunefleet/ml-tensor';
import { stepTogether, type StepOutcome, type StepResult, type StopCheck, type Trainer } from '@tunefleet/ml-training';
import type { SharedPasses } from '@tunefleet/ml-tuners';
import { availableDeviceBytes, tokensPerPass } from './device-limits';
import { yieldToEventLoop } from './stop-request';

/** What a run takes on the device in a pass that it shares. */
export interface SharedPassBytes {
  /** Values, gradient, optimiser: whatever the size of the pass. */
  readonly own: number;
  /** All else of a pass of so many tokens, were all of them this run's. */
  pass(tokens: number): number;
}

export interface SeatOptions {
  /** Runs of one kind share passes; null: this one takes its steps by itself. */
  readonly shares: SharedPasses | null;
  readonly bytes: SharedPassBytes;
  /** Once: its steps are made with those of so many others from here on. */
  readonly onShared: (others: number) => void;
  readonly onNotice: (message: string) => void;
}

/** A pass of fewer tokens is not worth sharing. */
const TOKENS_MIN = 32;

/**
 * Where the runs of one engine take their steps. Whoever asks while nobody else has a seat computes at once and alone. Else a round takes all who ask: those who train on
 * after a round ask again before the event loop comes round, so nobody waits for a run that validates, saves or loads. What can share passes is computed together, the rest
 * step by step in turn. One step is computed at a time; between its passes messages, and what other runs do besides training, get their turn.
 */
export class StepExchange {
  readonly #seats = new Set<StepSeat>();
  #asked: StepRequest[] = [];
  #isWorking = false;
  /** Lowered when the device ran out of memory; as long as there is company. */
  #tokensMax = Number.POSITIVE_INFINITY;

  constructor(private readonly device: Device) {}

  /** For a run that begins to train. Dispose it when it has ended. */
  enter(options: SeatOptions): StepSeat {
    const seat: StepSeat = new StepSeat(
      options,
      (trainer, shouldStop) => this.#ask(seat, trainer, shouldStop),
      () => this.#leave(seat),
    );
    this.#seats.add(seat);
    return seat;
  }

  #leave(seat: StepSeat): void {
    this.#seats.delete(seat);
    if (this.#seats.size < 2) this.#tokensMax = Number.POSITIVE_INFINITY;
  }

  async #ask(seat: StepSeat, trainer: Trainer, shouldStop: StopCheck): Promise<StepResult | null> {
    const request = new StepRequest(seat, trainer, shouldStop);
    this.#asked.push(request);
    if (!this.#isWorking) void this.#work();
    return request.answer;
  }

  async #work(): Promise<void> {
    this.#isWorking = true;
    while (this.#asked.length > 0) {
      const round = this.#asked.splice(0);
      await this.#round(round);
      // Time for the others of the round to ask again.
      if (this.#seats.size > 1) await yieldToEventLoop();
    }
    this.#isWorking = false;
  }

  async #round(round: readonly StepRequest[]): Promise<void> {
    for (const shares of new Set(round.flatMap(({ seat }) => seat.options.shares ?? []))) await this.#together(round, round.filter(({ seat }) => seat.options.shares === shares));
    for (const request of round) if (!request.isAnswered) await request.takeAlone(() => this.#stops(round, [request]));
  }

  /** Leaves unanswered whoever has to go alone. */
  async #together(round: readonly StepRequest[], sharing: readonly StepRequest[]): Promise<void> {
    let members: readonly StepRequest[] = sharing.filter(({ isAnswered }) => !isAnswered);
    while (members.length > 1) {
      const tokens = this.#tokensPerPass(members);
      if (tokens < TOKENS_MIN) return;
      const outcomes = await this.#outcomes(round, members, tokens);
      outcomes?.forEach((outcome, index) => members[index]?.takeShared(outcome, members.length - 1));
      // Stopped early, it is made again by those who train on.
      members = members.filter(({ isAnswered }) => !isAnswered);
    }
  }

  /** @returns null when no run has changed: somebody has to stop, or it failed */
  async #outcomes(round: readonly StepRequest[], members: readonly StepRequest[], tokensPerPass: number): Promise<StepOutcome[] | null> {
    try {
      return await stepTogether(members.map(({ trainer }) => trainer), { tokensPerPass, shouldStop: () => this.#stops(round, members) });
    } catch (error) {
      this.#notTogether(members, tokensPerPass, error);
      return null;
    }
  }

  /** The step can be made again: with smaller passes or, where that is not what failed, by each run alone. */
  #notTogether(members: readonly StepRequest[], tokens: number, error: unknown): void {
    const code = errorCode(error);
    if (code === 'invariant') return members.forEach((member) => member.fail(error));
    if (code === 'out_of_device_memory') {
      this.#tokensMax = Math.floor(tokens / 2);
      for (const { seat } of members) seat.options.onNotice(`the device ran out of memory in a shared pass of up to ${tokens} tokens; going on with half as many`);
      return;
    }
    this.#tokensMax = 0;
    for (const { seat } of members) seat.options.onNotice(`a step with other runs failed (${errorMessage(error)}); each goes on alone`);
  }

  #tokensPerPass(members: readonly StepRequest[]): number {
    const needs = members.map(({ seat }) => seat.options.bytes);
    const available = availableDeviceBytes(this.device) - needs.reduce((sum, { own }) => sum + own, 0);
    let tokens = Math.min(tokensPerPass(this.device), this.#tokensMax);
    while (tokens >= TOKENS_MIN && Math.max(...needs.map(({ pass }) => pass(tokens))) > available) tokens = Math.floor(tokens / 2);
    return tokens;
  }

  /** Asks everybody, so that whoever waits can go, too, and says that it is alive. @returns whether one of those who compute has to end */
  async #stops(round: readonly StepRequest[], computing: readonly StepRequest[]): Promise<boolean> {
    const open = [...round, ...this.#asked].filter(({ isAnswered }) => !isAnswered);
    await Promise.all(open.map((request) => request.stopIfWanted()));
    this.#asked = this.#asked.filter(({ isAnswered }) => !isAnswered);
    return computing.some(({ isAnswered }) => isAnswered);
  }
}

/** A run's place in an exchange. */
export class StepSeat implements Disposable {
  #hasShared = false;

  constructor(
    readonly options: SeatOptions,
    /** One optimiser step, as `Trainer.trainStep`. */
    readonly step: (trainer: Trainer, shouldStop: StopCheck) => Promise<StepResult | null>,
    private readonly leave: () => void,
  ) {}

  noteShared(others: number): void {
    if (!this.#hasShared) this.options.onShared(others);
    this.#hasShared = true;
  }

  [Symbol.dispose](): void {
    this.leave();
  }
}

/** A step that a run waits for. Answered once. */
class StepRequest {
  readonly answer: Promise<StepResult | null>;
  isAnswered = false;
  #resolve: (result: StepResult | null) => void = () => undefined;
  #reject: (error: unknown) => void = () => undefined;

  constructor(
    readonly seat: StepSeat,
    readonly trainer: Trainer,
    private readonly shouldStop: StopCheck,
  ) {
    this.answer = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  async takeAlone(shouldStop: StopCheck): Promise<void> {
    try {
      const result = await this.trainer.trainStep(shouldStop);
      this.#settle(() => this.#resolve(result));
    } catch (error) {
      this.fail(error);
    }
  }

  fail(error: unknown): void {
    this.#settle(() => this.#reject(error));
  }

  takeShared(outcome: StepOutcome, others: number): void {
    if ('failed' in outcome) this.fail(outcome.failed);
    else this.#settle(() => this.#resolve(outcome.result));
    this.seat.noteShared(others);
  }

  async stopIfWanted(): Promise<void> {
    if (await this.shouldStop()) this.#settle(() => this.#resolve(null));
  }

  #settle(answer: () => void): void {
    if (this.isAnswered) return;
    this.isAnswered = true;
    answer();
  }
}
