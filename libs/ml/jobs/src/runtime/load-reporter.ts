import type { ModelProgress } from '@tunefleet/ml-models';
import type { JobEvents } from './job-context';

const REPORT_INTERVAL_MS = 500;
const MEGABYTE = 1e6;

/** Tells how far fetching and loading a model are, at most twice a second, and logs each part once when it begins. */
export class LoadReporter {
  #lastReportMs = -Infinity;
  #lastPart = '';
  /** Who waits for the same load: they hear how far it is, and so do those who watch whether they are alive. */
  readonly #waiting = new Set<Pick<JobEvents, 'progress'>>();

  constructor(
    private readonly events: Pick<JobEvents, 'log' | 'progress'> | undefined,
    private readonly modelId: string,
  ) {}

  /** Until it is disposed. */
  follow(events: Pick<JobEvents, 'progress'>): Disposable {
    this.#waiting.add(events);
    return { [Symbol.dispose]: () => void this.#waiting.delete(events) };
  }

  fetched({ phase, what, done, total }: ModelProgress): void {
    const size = phase === 'download' && total !== null ? ` (${(total / MEGABYTE).toFixed(0)} MB)` : '';
    this.#begin(`${phase} ${what}`, `${phase === 'download' ? 'downloading' : 'converting'} ${what}${size} of ${this.modelId}`);
    const share = total === null || total === 0 ? '' : ` ${Math.floor((100 * done) / total)} %`;
    this.#report(`${phase}${share || ` ${(done / MEGABYTE).toFixed(0)} MB`}`);
  }

  /** @param share 0 to 1 */
  loaded(share: number): void {
    this.#begin('load', `loading ${this.modelId} onto the device`);
    this.#report(`load ${Math.floor(100 * share)} %`);
  }

  done(weightBytes: number, dtype: string, seconds: number): void {
    this.events?.log('info', `loaded ${this.modelId}: ${(weightBytes / MEGABYTE).toFixed(0)} MB in ${dtype}, ${seconds.toFixed(1)} s`);
  }

  #begin(part: string, message: string): void {
    if (part === this.#lastPart) return;
    this.#lastPart = part;
    this.#lastReportMs = -Infinity;
    this.events?.log('info', message);
  }

  #report(phase: string): void {
    const now = performance.now();
    if (now - this.#lastReportMs < REPORT_INTERVAL_MS) return;
    this.#lastReportMs = now;
    for (const events of [...(this.events === undefined ? [] : [this.events]), ...this.#waiting]) events.progress({ step: 0, totalSteps: 0, phase, tokensPerSecond: 0, etaSeconds: 0 });
  }
}
