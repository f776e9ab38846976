import { errorMessage, sleep } from '@tunefleet/foundation';
import type { Random } from '../../simulation/src/random';
import type { Api } from './api';
import type { Wish } from './record/record';
import type { Log } from './say';
import type { Template } from './templates';

export interface UserOptions {
  /** Jobs that have not ended, at most. */
  readonly jobsInFlight: number;
  readonly betweenActsMs: number;
}

/** Until the job just submitted is seen among those that have not ended. */
const SUBMIT_MS = 500;

const CANCELLED = 0.2;

type Act = 'cancel' | 'pause' | 'resume' | 'priority';

/** How often each is done, relative to the others. */
const ACTS: readonly (readonly [Act, number])[] = [
  ['cancel', 2],
  ['pause', 2],
  ['resume', 4],
  ['priority', 3],
];

/** People who submit jobs all the time and change their minds about some. They know what they wanted and what they were promised. */
export class Users {
  readonly wishes: Wish[] = [];
  readonly acts = new Map<string, number>();
  private readonly paused = new Set<string>();
  /** Jobs that will be cancelled; the others are to come to their ends. */
  private readonly unwanted = new Set<string>();
  private submitted = 0;

  constructor(
    private readonly api: Api,
    private readonly random: Random,
    private readonly log: Log,
    private readonly options: UserOptions,
    /** Ids of the jobs that have not ended. */
    private readonly inFlight: () => ReadonlySet<string>,
  ) {}

  async act(templates: readonly Template[], signal: AbortSignal): Promise<void> {
    // One of each that nobody cancels, so that there is something to compare; then as it comes.
    const first = [...templates];
    while (!signal.aborted) {
      const open = this.inFlight();
      const isShort = open.size < this.options.jobsInFlight;
      const next = isShort ? first.shift() : undefined;
      if (next !== undefined) await this.submit(next);
      else if (isShort) await this.submitAny(templates);
      else await this.changeMind([...open]);
      await sleep(isShort ? SUBMIT_MS : this.random.exponential(this.options.betweenActsMs), signal);
    }
  }

  /** So that everything can end. */
  async resumeAll(): Promise<void> {
    for (const jobId of [...this.paused]) await this.resume(jobId);
  }

  /** @returns the job's id; null when nobody answered */
  async submit({ name, request }: Template): Promise<string | null> {
    const wish: Wish = { key: `chaos-${name}-${++this.submitted}`, template: name, jobId: null, cancel: 'none' };
    this.wishes.push(wish);
    const options = { idempotencyKey: wish.key };
    const job = await this.api.ask<{ readonly id: string }>((client) => (request.kind === 'eval' ? client.evals.create(request.body, options) : client.fineTuning.jobs.create(request.body, options)));
    wish.jobId = job?.id ?? null;
    this.count('submit');
    this.log.say('user', wish.jobId === null ? `a submit (${name}) was never answered` : `submits ${name}: ${wish.jobId}`);
    return wish.jobId;
  }

  private async submitAny(templates: readonly Template[]): Promise<void> {
    const jobId = await this.submit(this.weighted(templates.map((template) => [template, template.weight] as const)));
    if (this.random.chance(CANCELLED) && jobId !== null) this.unwanted.add(jobId);
  }

  private async changeMind(open: readonly string[]): Promise<void> {
    const act = this.weighted(ACTS);
    const choice = act === 'resume' ? [...this.paused] : act === 'cancel' ? open.filter((jobId) => this.unwanted.has(jobId)) : open;
    if (choice.length === 0) return;
    const jobId = this.random.pick(choice);
    const wish = this.wishes.find((each) => each.jobId === jobId);
    if (wish === undefined) return;
    try {
      if (act === 'cancel') await this.cancel(wish, jobId);
      else if (act === 'resume') await this.resume(jobId);
      else if (act === 'pause') await this.pause(jobId);
      else await this.setPriority(jobId);
    } catch (error) {
      // The job had ended, or is not paused yet: what users hear every day.
      this.log.say('user', `${act} of ${jobId} is refused: ${errorMessage(error).slice(0, 120)}`);
    }
  }

  private async cancel(wish: Wish, jobId: string): Promise<void> {
    if (wish.cancel === 'none') wish.cancel = 'unsure';
    try {
      const job = await this.api.ask((client) => client.jobs.cancel(jobId));
      if (job?.status === 'cancelled') wish.cancel = 'confirmed';
      this.count('cancel');
      this.log.say('user', `cancels ${jobId}: ${job === null ? 'never answered' : job.status}`);
      this.paused.delete(jobId);
    } catch (error) {
      // Refused for good, unless an earlier try that was not answered had done it.
      const job = await this.api.ask((client) => client.jobs.get(jobId));
      if (job !== null) wish.cancel = job.status === 'cancelled' ? 'confirmed' : 'none';
      throw error;
    }
  }

  private async pause(jobId: string): Promise<void> {
    this.paused.add(jobId);
    const job = await this.api.ask((client) => client.jobs.pause(jobId));
    this.count('pause');
    this.log.say('user', `pauses ${jobId}: ${job?.status ?? 'never answered'}`);
  }

  /** Until it is not paused any more; a pause that waits for a checkpoint is waited for. */
  private async resume(jobId: string): Promise<void> {
    const job = await this.api.ask((client) => client.jobs.get(jobId));
    if (job === null) return;
    if (job.status === 'paused' || job.stop_requested === 'paused') {
      const resumed = await this.api.ask((client) => client.jobs.resume(jobId));
      this.count('resume');
      this.log.say('user', `resumes ${jobId}: ${resumed?.status ?? 'never answered'}`);
      if (resumed === null) return;
    }
    this.paused.delete(jobId);
  }

  private async setPriority(jobId: string): Promise<void> {
    const priority = this.random.int(-2, 2);
    await this.api.ask((client) => client.jobs.setPriority(jobId, priority));
    this.count('priority');
    this.log.say('user', `gives ${jobId} priority ${priority}`);
  }

  private weighted<T>(choices: readonly (readonly [T, number])[]): T {
    let left = this.random.next() * choices.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [choice, weight] of choices) if ((left -= weight) < 0) return choice;
    return (choices.at(-1) as readonly [T, number])[0];
  }

  private count(act: string): void {
    this.acts.set(act, (this.acts.get(act) ?? 0) + 1);
  }
}
