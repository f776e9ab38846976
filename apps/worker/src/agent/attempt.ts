import { join } from 'node:path';
import type { ArtifactRef, Failure, fleet } from '@tunefleet/contracts';
import { silenceRule } from '@tunefleet/domain-jobs';
import { assertNever, errorCode, errorMessage, systemTimers, type Clock, type Logger, type Timers } from '@tunefleet/foundation';
import type { FromEngine, ToEngine } from '../engine-protocol';
import type { ArtifactCache } from './artifact-cache';
import type { ArtifactTransfer } from './artifact-transfer';
import type { AttemptFolder } from './attempt-folder';
import { EventLog } from './event-log';
import { toEventPayload, toFailed } from './event-payload';
import type { EngineEnd, EngineRuns } from './engine-runs';
import { EngineWatch } from './engine-watch';
import { LeaseClock } from './lease-clock';
import type { WorkerPayload } from './server-link';
import type { AgentSettings } from './settings';
import { decideStop, type StopReason } from './stop-plan';

export interface AttemptDeps {
  readonly settings: AgentSettings;
  readonly cache: Pick<ArtifactCache, 'ensure' | 'adopt' | 'release'>;
  readonly transfer: Pick<ArtifactTransfer, 'upload' | 'download'>;
  /** For this attempt alone. */
  readonly folder: AttemptFolder;
  readonly clock: Clock;
  readonly timers?: Timers;
  readonly logger: Logger;
  readonly engine: Pick<EngineRuns, 'begin' | 'end' | 'recentLines'>;
  /** There may be something to send. */
  readonly onOutput: () => void;
}

/** preparing: fetching inputs; running: the engine has it; stopping: asked to stop; ending: uploads and events go out; over: told and acknowledged. */
type Phase = 'preparing' | 'running' | 'stopping' | 'ending' | 'over';

type Outcome = NonNullable<fleet.Finished['outcome']>;

/**
 * One attempt from its assignment to the acknowledged end. The engine's events are numbered and kept until they are stored; checkpoints are uploaded
 * in order and reported only then; Finished goes out after everything else and is repeated until acknowledged.
 */
export class Attempt {
  readonly ref: fleet.AttemptRef;
  private phase: Phase = 'preparing';
  private step = 0;
  private stopReason: StopReason | null = null;
  private outcome: Outcome | null = null;
  private finishedSent = false;
  /** Events are worth nothing any more: the attempt was cancelled or is stale. */
  private dropEvents = false;
  private readonly events = new EventLog();
  private readonly lease: LeaseClock;
  private readonly watch: EngineWatch;
  /** What it ends with unless the engine answers otherwise before it is not waited for any more. */
  private givenUp: Failure | null = null;
  private readonly transfers = new AbortController();
  /** Hashes of what it holds in the cache. */
  private readonly held: string[] = [];
  /** Uploads, one after the other. */
  private uploads: Promise<void> = Promise.resolve();

  constructor(
    private readonly assign: fleet.Assign & { attempt: fleet.AttemptRef },
    private readonly deps: AttemptDeps,
  ) {
    this.ref = assign.attempt;
    const timers = deps.timers ?? systemTimers;
    this.lease = new LeaseClock(deps.clock, deps.settings.leaseMarginMs, () => this.stop('lease_lost', deps.settings.checkpointStopMs), timers);
    this.lease.renew(assign.leaseMs);
    this.watch = new EngineWatch({
      rule: silenceRule(deps.settings.engineSilenceMs),
      clock: deps.clock,
      timers,
      onStuck: (message, phase) => this.remark(`Stuck: ${message}`, { code: 'stuck', phase }),
      onHeardAgain: (silentMs) => this.remark(`The engine goes on after ${Math.round(silentMs / 1000)} s of silence`, { code: 'unstuck' }),
      onGivenUp: (message) => this.giveUp(message),
    });
  }

  is(ref: fleet.AttemptRef | undefined): boolean {
    return ref?.attemptId === this.ref.attemptId && ref.epoch === this.ref.epoch;
  }

  /** The record has closed it, or may at any moment: what comes next may be on another base model. */
  get isLetGo(): boolean {
    return this.phase === 'ending' || this.phase === 'over' || this.stopReason === 'stale' || this.stopReason === 'lease_lost';
  }

  get isOver(): boolean {
    return this.phase === 'over';
  }

  running(): fleet.RunningAttempt {
    return { attempt: this.ref, step: this.step, lastSeq: this.events.lastSeq };
  }

  /** Fetches inputs and hands the job to the engine. Never rejects. */
  async start(): Promise<void> {
    try {
      const run = await this.prepare();
      if (this.phase !== 'preparing') return;
      this.phase = 'running';
      this.watch.start();
      if (!this.deps.engine.begin(run)) this.fail(engineFailure('engine_crashed', 'the engine is not running', this.deps.engine.recentLines));
    } catch (error) {
      if (this.phase === 'preparing') this.failPreparing(error);
    }
  }

  onEngine(message: Exclude<FromEngine, { type: 'ready' }>): void {
    if (message.runId !== this.ref.attemptId || this.phase === 'ending' || this.phase === 'over') return;
    this.watch.heard(message.type === 'progress' ? message.phase : undefined);
    switch (message.type) {
      case 'log':
      case 'metrics':
      case 'progress':
        if (message.type !== 'log') this.step = Math.max(this.step, message.step);
        return this.record(toEventPayload(message));
      case 'checkpoint':
        return this.queueUpload(() => this.uploadCheckpoint(message));
      case 'model':
        return;
      case 'succeeded':
        if (this.dropEvents) return this.end(stoppedOutcome(this.stopReason));
        this.queueUpload(async () => {
          await this.uploadFiles(message.dir, message.files);
          this.outcome ??= { $case: 'succeeded', value: { resultJson: JSON.stringify(message.result), artifacts: [...message.files] } };
        });
        return this.end(null);
      case 'failed':
        return this.end(this.stopReason === null ? toFailed(message.failure, this.deps.engine.recentLines) : stoppedOutcome(this.stopReason));
      case 'stopped':
        return this.givenUp !== null && this.stopReason === null ? this.fail(this.givenUp) : this.end(stoppedOutcome(this.stopReason ?? 'stale'));
      default:
        return assertNever(message, 'engine message');
    }
  }

  /** The engine process died with this attempt in it, or was killed because it, or another one, did not stop in time. */
  onEngineExit(end: EngineEnd): void {
    if (this.phase !== 'running' && this.phase !== 'stopping') return;
    if (this.stopReason !== null) return this.end(stoppedOutcome(this.stopReason));
    if (this.givenUp !== null) return this.fail(this.givenUp);
    this.fail(failureOf(end, this.ref.attemptId));
  }

  /** The engine was asked to end it and has not, and is not waited for: a process in its driver's hands may not even go when it is killed. */
  onUnanswered(): void {
    if (this.phase !== 'running' && this.phase !== 'stopping') return;
    if (this.stopReason === null && this.givenUp !== null) this.fail(this.givenUp);
    else this.end(stoppedOutcome(this.stopReason));
  }

  renewLease(validForMs: number): void {
    if (this.phase !== 'over') this.lease.renew(validForMs);
  }

  /** @param graceMs how long the engine may take; with a checkpoint to write if the reason allows one */
  stop(reason: StopReason, graceMs: number): void {
    if (this.phase === 'over') return;
    const plan = decideStop(reason, graceMs, this.deps.settings);
    // Said again with every beat until the end is acknowledged; the time to the kill must not start over each time.
    if (this.dropEvents && this.phase === 'stopping') return;
    if (plan.drop) {
      this.dropEvents = true;
      this.transfers.abort();
    }
    if (this.phase === 'ending') {
      // Lost lease: what is on its way keeps going, it may still be accepted. Dropped: nothing is worth waiting for.
      if (plan.drop) this.outcome = stoppedOutcome(reason);
      return this.deps.onOutput();
    }
    if (this.stopReason !== null && !plan.drop) return;
    this.stopReason = reason;
    this.deps.logger.info({ ...this.ref, reason, checkpoint: plan.checkpoint }, 'stopping attempt');
    if (this.phase === 'preparing') {
      this.transfers.abort();
      return this.end(stoppedOutcome(reason));
    }
    this.phase = 'stopping';
    // From here on the grace bounds the engine.
    this.watch.stop();
    this.deps.engine.end(this.ref.attemptId, plan);
  }

  /** What to send next, in order: events, then the end. Null: nothing now. */
  nextMessage(): WorkerPayload | null {
    if (this.phase === 'over') return null;
    const batch = this.dropEvents ? null : this.events.nextBatch();
    if (batch !== null) return { $case: 'events', value: { attempt: this.ref, events: [...batch] } };
    if (this.phase !== 'ending' || this.outcome === null || this.finishedSent) return null;
    if (!this.dropEvents && !this.events.isDrained) return null;
    this.finishedSent = true;
    return { $case: 'finished', value: { attempt: this.ref, lastSeq: this.events.lastSeq, outcome: this.outcome } };
  }

  onEventAck(ack: fleet.EventAck): void {
    if (ack.stale) return this.stop('stale', 0);
    this.events.acknowledge(ack.seq);
  }

  /** The stream is new: what was not acknowledged on the old one is sent again. */
  rewind(): void {
    this.events.rewind();
    this.finishedSent = false;
  }

  /** The end is on record: clean up. */
  async close(): Promise<void> {
    this.phase = 'over';
    this.lease.stop();
    this.watch.stop();
    this.transfers.abort();
    await this.uploads;
    this.deps.cache.release(this.held.splice(0));
    await this.deps.folder.remove();
  }

  private async prepare(): Promise<ToEngine & { type: 'run' }> {
    const { folder } = this.deps;
    const outputDir = await folder.create();
    const inputFiles: Record<string, string> = {};
    for (const artifact of this.assign.inputs) inputFiles[artifact.sha256] = await this.fetch(artifact);
    let resumeDir: string | null = null;
    if (this.assign.resume !== undefined) {
      resumeDir = await folder.createResume();
      for (const artifact of this.assign.resume.artifacts) await folder.link(await this.fetch(artifact), join(resumeDir, artifact.name));
      this.step = this.assign.resume.step;
    }
    return {
      type: 'run',
      runId: this.ref.attemptId,
      kind: this.assign.kind,
      schemaVersion: this.assign.schemaVersion,
      spec: JSON.parse(this.assign.specJson) as Record<string, unknown>,
      inputFiles,
      resumeDir,
      outputDir,
    };
  }

  private fetch(artifact: ArtifactRef): Promise<string> {
    this.held.push(artifact.sha256);
    return this.deps.cache.ensure(artifact, (wanted, file, signal) => this.deps.transfer.download(this.ref, wanted, file, signal), this.transfers.signal);
  }

  private record(payload: ReturnType<typeof toEventPayload>): void {
    if (this.dropEvents) return;
    try {
      this.events.add(payload, this.deps.clock.now());
      this.deps.onOutput();
    } catch (error) {
      this.abandonRun();
      this.fail({ class: 'platform', code: 'event_buffer_full', message: errorMessage(error), param: null, logTail: [] });
    }
  }

  /** The agent's own word in the job's events. */
  private remark(message: string, data: Readonly<Record<string, string | null>>): void {
    this.deps.logger.warn({ ...this.ref, ...data }, message);
    this.record({ $case: 'log', value: { level: 'warn', message, dataJson: JSON.stringify(data) } });
  }

  /** It may only be slow to answer. */
  private giveUp(message: string): void {
    this.givenUp = engineFailure('stuck', message, this.deps.engine.recentLines);
    this.deps.logger.error(this.ref, `${message}; it is given up`);
    this.abandonRun();
  }

  /** What the engine makes of it counts no more. */
  private abandonRun(): void {
    this.deps.engine.end(this.ref.attemptId, { checkpoint: false, killAfterMs: this.deps.settings.stopMs });
  }

  private queueUpload(upload: () => Promise<void>): void {
    this.uploads = this.uploads.then(upload).catch((error: unknown) => this.onUploadError(error));
  }

  private async uploadCheckpoint(checkpoint: FromEngine & { type: 'checkpoint' }): Promise<void> {
    if (this.dropEvents) return;
    await this.uploadFiles(checkpoint.dir, checkpoint.files);
    for (const file of checkpoint.files) await this.deps.cache.adopt(join(checkpoint.dir, file.name), file);
    this.record({ $case: 'checkpoint', value: { step: checkpoint.step, artifacts: [...checkpoint.files], metrics: { ...checkpoint.metrics } } });
    await this.deps.folder.removeCheckpoint(checkpoint.dir);
  }

  private async uploadFiles(dir: string, files: readonly ArtifactRef[]): Promise<void> {
    for (const file of files) await this.deps.transfer.upload(this.ref, file, join(dir, file.name), this.transfers.signal);
  }

  private onUploadError(error: unknown): void {
    const code = errorCode(error);
    if (code === 'cancelled') return;
    if (code === 'lease_lost') return this.stop('stale', 0);
    this.deps.logger.error({ err: error, ...this.ref }, 'an artifact could not be uploaded');
    const failure: Failure = { class: 'infrastructure', code: 'upload_failed', message: errorMessage(error).slice(0, 4000), param: null, logTail: [] };
    if (this.phase === 'ending') {
      this.outcome ??= toFailed(failure, []);
      return this.deps.onOutput();
    }
    this.abandonRun();
    this.fail(failure);
  }

  private failPreparing(error: unknown): void {
    const code = errorCode(error);
    if (code === 'lease_lost') return this.stop('stale', 0);
    this.deps.logger.error({ err: error, ...this.ref }, 'attempt could not be prepared');
    this.fail({ class: 'infrastructure', code: code === 'not_found' ? 'artifact_missing' : 'preparation_failed', message: errorMessage(error).slice(0, 4000), param: null, logTail: [] });
  }

  private fail(failure: Failure): void {
    this.end(toFailed(failure, []));
  }

  /** The engine is done with it; what is left is to bring uploads and events out. Null: the outcome comes with the last upload. */
  private end(outcome: Outcome | null): void {
    this.phase = 'ending';
    this.watch.stop();
    this.uploads = this.uploads.then(() => {
      this.outcome ??= outcome;
      this.deps.onOutput();
    });
    if (this.dropEvents) this.outcome ??= outcome;
    this.deps.onOutput();
  }
}

function stoppedOutcome(reason: StopReason | null): Outcome {
  return { $case: 'stopped', value: { reason: reason ?? 'stale' } };
}

function engineFailure(code: string, message: string, logTail: readonly string[]): Failure {
  return { class: 'infrastructure', code, message, param: null, logTail: [...logTail] };
}

/** Of an attempt that nobody had asked to stop. Only one that was alone can be to blame. */
function failureOf(end: EngineEnd, attemptId: string): Failure {
  const { logTail, outOfMemory, runIds, killedFor } = end;
  if (killedFor !== null && killedFor !== attemptId) {
    return engineFailure('engine_killed', 'the engine was ended because another job in it did not stop in time; this one goes on from its last checkpoint', logTail);
  }
  const others = runIds.length - 1;
  if (others > 0) {
    const why = outOfMemory ? 'the system killed the engine for lack of memory' : describeExit(end);
    return engineFailure(outOfMemory ? 'out_of_memory' : 'engine_crashed', `${why}; ${others} other ${others === 1 ? 'job was' : 'jobs were'} in it, so nobody can tell whose doing it was`, logTail);
  }
  return outOfMemory ? outOfMemoryAlone(end) : engineFailure('engine_crashed', describeExit(end), logTail);
}

/** Tried once more with half the examples per pass. */
function outOfMemoryAlone({ logTail }: EngineEnd): Failure {
  const message = "the system killed the engine for lack of memory; lower micro_batch_size, max_seq_length or batch_size if it happens again";
  return { class: 'resource', code: 'out_of_memory', message, param: null, logTail: [...logTail] };
}

function describeExit({ code, signal, crashes }: EngineEnd): string {
  const how = signal === null ? `with code ${code}` : `on signal ${signal}`;
  // Not every system says whether it was its out-of-memory killer.
  const hint = signal === 'SIGKILL' ? '; the system may have run out of memory' : '';
  return `the engine process ended ${how}${hint} (crash ${crashes} of this worker)`;
}
