import type { FineTuningJob, JobStreamMessage, JobSummary } from '@tunefleet/contracts';
import type { Clock } from '@tunefleet/foundation';
import type { Output } from '../render/output';
import { waitingText } from '../render/waiting';
import { LiveRegion } from './live-region';
import { afterMessage, emptyJobView, eventLine, liveLines, progressLine, type JobView } from './job-view';

/** Plain output: at most one progress line in this time. */
const PLAIN_INTERVAL_MS = 5_000;
/** Terminal: redraws at most this often. */
const REDRAW_INTERVAL_MS = 100;
/** Terminal: the time left counts down also when nothing comes. */
const TICK_MS = 1_000;

export type JobStatus = FineTuningJob['status'];

export interface WatchOptions {
  readonly messages: AsyncIterable<JobStreamMessage>;
  readonly output: Output;
  readonly clock: Clock;
  /** Events as lines of their own. Default: shown. */
  readonly showEvents?: boolean;
}

export interface WatchedJob {
  /** The last state seen; null when the messages stopped before the first. */
  readonly job: JobSummary | null;
  /** False when watching stopped before the job's end. */
  readonly ended: boolean;
  readonly losses: readonly number[];
}

/** Shows a job until its end, or until the messages stop (abort them to stop watching: the job goes on). */
export async function watchJob(options: WatchOptions): Promise<WatchedJob> {
  const screen = options.output.interactive ? new LiveScreen(options) : options.output.json ? new JsonScreen(options) : new PlainScreen(options);
  let view = emptyJobView;
  try {
    for await (const message of options.messages) {
      view = afterMessage(view, message);
      screen.show(message, view);
      if (view.ended) break;
    }
  } finally {
    screen.close(view);
  }
  return { job: view.job, ended: view.ended, losses: view.losses };
}

interface Screen {
  show(message: JobStreamMessage, view: JobView): void;
  close(view: JobView): void;
}

/** Progress bar and curve, redrawn in place; events stay above. */
class LiveScreen implements Screen {
  readonly #region: LiveRegion;
  #view: JobView = emptyJobView;
  #drawnAt = -Infinity;
  readonly #ticker: NodeJS.Timeout;

  constructor(private readonly options: WatchOptions) {
    const { output } = options;
    this.#region = new LiveRegion({ write: (text) => output.raw(text), columns: () => output.columns() });
    this.#ticker = setInterval(() => this.#draw(), TICK_MS);
    this.#ticker.unref();
  }

  show(message: JobStreamMessage, view: JobView): void {
    this.#view = view;
    const line = message.type === 'event' && this.options.showEvents !== false ? eventLine(message.data) : null;
    if (line !== null) this.#region.print(line);
    if (this.options.clock.monotonic() - this.#drawnAt >= REDRAW_INTERVAL_MS) this.#draw();
  }

  close(view: JobView): void {
    clearInterval(this.#ticker);
    this.#view = view;
    this.#draw();
    this.#region.close({ keep: view.losses.length > 0 });
  }

  #draw(): void {
    this.#drawnAt = this.options.clock.monotonic();
    this.#region.update(liveLines(this.#view, this.options.clock.now(), this.options.output.columns()));
  }
}

/** For pipes and logs: changes of state and events at once, progress now and then. */
class PlainScreen implements Screen {
  #progressAt = -Infinity;
  #said = '';

  constructor(private readonly options: WatchOptions) {}

  show(message: JobStreamMessage, view: JobView): void {
    const { output, clock } = this.options;
    if (message.type === 'event' && this.options.showEvents !== false) output.item(message.data, () => eventLine(message.data));
    if (message.type === 'job') this.#sayState(message.data);
    if (message.type !== 'metrics' && message.type !== 'job') return;
    if (view.job?.status !== 'running' || clock.monotonic() - this.#progressAt < PLAIN_INTERVAL_MS) return;
    this.#progressAt = clock.monotonic();
    output.item(null, () => progressLine(view, clock.now()));
  }

  close(view: JobView): void {
    if (view.job !== null && view.lastLoss !== null) this.options.output.item(null, () => progressLine(view, this.options.clock.now()));
  }

  #sayState(job: JobSummary): void {
    // A forecast moves a little all the time: that alone is no news.
    const state = `${job.status} ${job.queue_position ?? ''} ${job.waiting_reason ?? ''}`;
    if (state === this.#said) return;
    this.#said = state;
    const waiting = waitingText(job);
    this.options.output.item(null, () => `${job.id}: ${job.status}${waiting === '' ? '' : ` (${waiting})`}`);
  }
}

/** Every message as one line of JSON. */
class JsonScreen implements Screen {
  constructor(private readonly options: WatchOptions) {}

  show(message: JobStreamMessage): void {
    this.options.output.item(message, () => null);
  }

  close(): void {
    // Nothing is held back.
  }
}
