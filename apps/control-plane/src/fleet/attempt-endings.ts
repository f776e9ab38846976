import type { ArtifactRef, Failure } from '@tunefleet/contracts';
import { afterStop, cordonReason, decideAfterFailure, defaultCordonRule, type CordonRule } from '@tunefleet/domain-jobs';
import { errorCode, errorMessage, type JsonObject, type Logger } from '@tunefleet/foundation';
import type { AfterFailure, AttemptKey, AttemptOutcome, FencedResult, FleetStore, RecordStore } from '@tunefleet/ports';
import { buildCompletion, type CompletionDeps } from './completion';

export interface AttemptEndingsDeps extends CompletionDeps {
  readonly fleet: Pick<FleetStore, 'getJob' | 'complete' | 'endAttempt' | 'closeAttempt' | 'listInfraFailures' | 'cordonWorker'>;
  readonly records: Pick<RecordStore, 'listMetrics' | 'listAttempts'>;
  readonly logger: Logger;
  readonly cordonRule?: CordonRule;
}

/**
 * The ways an attempt ends, shared by the sessions (a worker said so) and the reconciler (nobody said anything for too long).
 * All are conditional on the epoch in the store: calling one twice, or from two replicas, applies it once.
 */
export class AttemptEndings {
  constructor(private readonly deps: AttemptEndingsDeps) {}

  async succeeded(key: AttemptKey, result: JsonObject | null, artifacts: readonly ArtifactRef[]): Promise<FencedResult> {
    const job = await this.deps.fleet.getJob(key.jobId);
    if (job === null || job.epoch !== key.epoch) return this.closeStale(key);
    let completion;
    try {
      completion = await buildCompletion(job, result, artifacts, this.deps);
    } catch (error) {
      if (errorCode(error) !== 'incompatible_artifact') throw error;
      // Not `platform`: that budget has no end, and a worker that answers nonsense would be asked for ever.
      const failure: Failure = { class: 'infrastructure', code: 'invalid_result', message: errorMessage(error), param: null, logTail: [] };
      return this.failed(key, failure, 'failed');
    }
    return this.settle(key, 'succeeded', await this.deps.fleet.complete(key, completion));
  }

  async failed(key: AttemptKey, failure: Failure, outcome: 'failed' | 'lost'): Promise<FencedResult> {
    const job = await this.deps.fleet.getJob(key.jobId);
    if (job === null || job.epoch !== key.epoch) return this.closeStale(key);
    const attempts = await this.deps.records.listAttempts(key.jobId);
    const history = attempts.filter((attempt) => attempt.id !== key.attemptId && attempt.finishedAt !== null).sort((a, b) => a.epoch - b.epoch);
    const own = attempts.find((attempt) => attempt.id === key.attemptId);
    const after: AfterFailure = decideAfterFailure({ ...job, microBatchSize: own?.microBatchSize ?? null }, failure, history);
    this.deps.logger.warn({ ...key, outcome, failure: { class: failure.class, code: failure.code, message: failure.message }, after }, 'attempt ended without success');
    const result = await this.settle(key, outcome, await this.deps.fleet.endAttempt(key, { outcome, failure, after }));
    if (result === 'applied' && failure.class === 'infrastructure' && own !== undefined) await this.cordonIfFailing(own.workerId);
    return result;
  }

  /** Stopped on request or by the worker's own shutdown; no failure, so the job is queued again unless it was cancelled meanwhile. */
  async stopped(key: AttemptKey, reason: string): Promise<FencedResult> {
    this.deps.logger.info({ ...key, reason }, 'attempt stopped');
    return this.settle(key, 'stopped', await this.deps.fleet.endAttempt(key, { outcome: 'stopped', failure: null, after: afterStop }));
  }

  /** A worker on which one job after the other fails gets no more until somebody has looked at it. */
  private async cordonIfFailing(workerId: string): Promise<void> {
    const rule = this.deps.cordonRule ?? defaultCordonRule;
    const reason = cordonReason(await this.deps.fleet.listInfraFailures(workerId, rule.withinMs), rule);
    if (reason === null || !(await this.deps.fleet.cordonWorker(workerId, reason))) return;
    this.deps.logger.error({ workerId, reason }, 'worker cordoned: uncordon it once it has been looked after');
  }

  private async settle(key: AttemptKey, outcome: AttemptOutcome, result: FencedResult): Promise<FencedResult> {
    // The store has closed the attempt if it was still open.
    if (result === 'stale') return result;
    this.deps.logger.info({ ...key, outcome }, 'attempt settled');
    return result;
  }

  /** The job went on without this attempt (cancelled, or a newer epoch): only the attempt itself is left to close. */
  private async closeStale(key: AttemptKey): Promise<FencedResult> {
    await this.deps.fleet.closeAttempt(key, 'stopped');
    return 'stale';
  }
}
