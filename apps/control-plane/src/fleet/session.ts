import type { ArtifactRef, fleet } from '@tunefleet/contracts';
import { assertNever, errorCode, errorMessage, TunefleetError, type Clock, type JsonObject, type Logger } from '@tunefleet/foundation';
import type { AssignmentRecord, AttemptKey, BlobStore, FencedResult, FleetAccess, FleetStore, WorkerEvent } from '@tunefleet/ports';
import type { AttemptEndings } from './attempt-endings';
import { requireStored } from './completion';
import { decideSession, matchRunning, newSessionState, type SessionCommand, type SessionInput, type SessionState } from './session-machine';
import { OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, type FleetSettings } from './settings';
import { collectArtifacts } from './spec-artifacts';
import { parseWorkerMessage, type FinishedInput, type HelloInput } from './worker-input';

/** The server's half of the stream, as the session needs it. */
export interface SessionStream {
  send(message: fleet.ServerMessage): void;
  /** Ends the stream in good order. */
  end(): void;
  /** Ends the stream with an error status. */
  abort(error: unknown): void;
}

export interface SessionDeps {
  readonly store: FleetStore;
  readonly access: Pick<FleetAccess, 'missingUploads'>;
  /** Refuses a Hello that the caller's credential does not cover. @throws permission_denied */
  readonly admit: (hello: HelloInput) => void;
  readonly blobs: Pick<BlobStore, 'stat'>;
  readonly endings: AttemptEndings;
  readonly settings: FleetSettings;
  readonly replicaId: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Called once the worker is known: older sessions of it are fenced. */
  readonly onRegistered: (workerId: string, session: FleetSession) => void;
}

/** Applies what `session-machine.ts` decides for one worker stream. Messages are handled one at a time, in order. */
export class FleetSession {
  private state: SessionState;
  private workerId: string | null = null;
  private bootId: string | null = null;
  private busy = false;
  private owed: 'idle' | 'sending' | 'again' = 'idle';
  private readonly assigned = new Set<string>();
  /** Of those the ones that the worker has not answered yet. */
  private readonly unanswered = new Map<string, AttemptKey>();
  /** Attempts known to be this worker's; which worker has an attempt never changes. */
  private readonly own = new Set<string>();
  /** What each attempt was told, by its id: a pause may still turn into a cancel. */
  private readonly stopped = new Map<string, string>();

  constructor(
    readonly id: string,
    private readonly stream: SessionStream,
    private readonly deps: SessionDeps,
  ) {
    this.state = newSessionState(deps.clock.monotonic());
  }

  get isClosed(): boolean {
    return this.state.phase === 'closed';
  }

  /** Handles one message to its end; the caller reads the next one only then, which is the stream's backpressure. */
  async receive(wire: fleet.WorkerMessage): Promise<void> {
    if (this.isClosed) return;
    // A kind of message that a newer worker has and this version does not.
    if (wire.message === undefined) return;
    this.busy = true;
    try {
      await this.step({ type: 'message', atMs: this.deps.clock.monotonic(), message: parseWorkerMessage(wire) });
    } finally {
      this.busy = false;
    }
  }

  tick(): void {
    this.spawn({ type: 'tick', atMs: this.deps.clock.monotonic(), busy: this.busy });
  }

  wake(): void {
    this.spawn({ type: 'wake' });
  }

  fence(): void {
    this.spawn({ type: 'fenced' });
  }

  revoke(): void {
    this.spawn({ type: 'revoked' });
  }

  shutdown(): void {
    this.spawn({ type: 'shutdown' });
  }

  /** The stream is gone; the lease decides about attempts. */
  async disconnected(): Promise<void> {
    this.state = { ...this.state, phase: 'closed' };
    if (this.workerId !== null) await this.deps.store.disconnectWorker(this.workerId, this.id);
  }

  /** Closes the session because of an error: the worker comes back and sends again what was not acknowledged. */
  fail(error: unknown): void {
    if (this.isClosed) return;
    this.state = { ...this.state, phase: 'closed' };
    this.deps.logger.error({ err: error, sessionId: this.id, workerId: this.workerId }, 'worker session failed');
    this.stream.abort(error);
  }

  private spawn(input: SessionInput): void {
    this.step(input).catch((error: unknown) => this.fail(error));
  }

  private async step(input: SessionInput): Promise<void> {
    const { state, commands } = decideSession(this.state, input, this.deps.settings.silenceMs);
    this.state = state;
    for (const command of commands) await this.apply(command);
  }

  private async apply(command: SessionCommand): Promise<void> {
    switch (command.do) {
      case 'register':
        return this.register(command.hello);
      case 'credit':
        return this.credit(command);
      case 'renew':
        return this.renew(command.keys, command.memoryBytesFree);
      case 'append':
        return this.append(command.key, command.events);
      case 'finish':
        return this.finish(command.finished);
      case 'acknowledge':
        return this.acknowledge(command.key);
      case 'revoke':
        this.unanswered.delete(command.key.attemptId);
        if (!(await this.isOwn(command.key))) return;
        this.deps.logger.warn({ ...command.key, workerId: this.workerId, reason: command.reason }, 'worker refused an assignment');
        await this.deps.store.revoke(command.key, command.reason);
        return this.deps.store.wake('schedule');
      case 'send_owed':
        return this.sendOwed();
      case 'send_beat':
        return this.send({ $case: 'beat', value: { seq: command.seq, memoryBytesFree: 0, running: [] } });
      case 'goodbye':
        this.send({ $case: 'goodbye', value: { reason: command.reason, reconnectAfterMs: command.reconnectAfterMs } });
        return this.stream.end();
      case 'abort':
        this.deps.logger.warn({ sessionId: this.id, workerId: this.workerId }, command.message);
        return this.stream.abort(new TunefleetError(command.code, command.message));
      default:
        return assertNever(command, 'session command');
    }
  }

  private async register(hello: HelloInput): Promise<void> {
    const { store, settings, replicaId } = this.deps;
    if (hello.protocolVersion < OLDEST_PROTOCOL_VERSION) {
      throw new TunefleetError(
        'incompatible_artifact',
        `the worker (release ${hello.version}) speaks protocol ${hello.protocolVersion}, this control plane serves ${OLDEST_PROTOCOL_VERSION} and newer: update the worker and start it again, it keeps its name and credential`,
        { reason: 'protocol_too_old', details: { spoken: hello.protocolVersion, oldest: OLDEST_PROTOCOL_VERSION } },
      );
    }
    this.deps.admit(hello);
    await store.helloWorker({
      id: hello.workerId,
      bootId: hello.bootId,
      name: hello.name,
      version: hello.version,
      device: hello.device,
      labels: hello.labels,
      jobKinds: hello.jobKinds,
      modelsOnDisk: hello.modelsOnDisk,
      modelInMemory: hello.modelInMemory,
      slots: hello.slots,
      sessionId: this.id,
      replicaId,
    });
    this.workerId = hello.workerId;
    this.bootId = hello.bootId;
    this.deps.onRegistered(hello.workerId, this);
    this.deps.logger.info({ workerId: hello.workerId, name: hello.name, bootId: hello.bootId, sessionId: this.id }, 'worker connected');
    this.send({
      $case: 'welcome',
      value: {
        protocolVersion: PROTOCOL_VERSION,
        sessionId: this.id,
        beatIntervalMs: settings.beatIntervalMs,
        leaseMs: settings.leaseMs,
        artifactChunkBytes: settings.artifactChunkBytes,
      },
    });
    await this.matchAttempts(hello);
  }

  private async matchAttempts(hello: HelloInput): Promise<void> {
    const live = await this.deps.store.listLiveAttempts(hello.workerId);
    const match = matchRunning(
      hello.bootId,
      hello.running.map((running) => running.attempt),
      live,
    );
    for (const key of match.stop) this.sendStop(key, 'stale');
    for (const key of match.acknowledge) await this.acknowledge(key);
    for (const key of match.keep) await this.renewOne(key);
    for (const attempt of match.lost) {
      const key = { jobId: attempt.jobId, attemptId: attempt.id, epoch: attempt.epoch };
      // Another boot: the agent that ran it is gone, its engine with it by their closed channel, so nothing needs to wait for the lease.
      const isOtherBoot = attempt.workerBootId !== hello.bootId;
      const message = isOtherBoot ? 'the worker was restarted' : 'the worker no longer knows this attempt';
      await this.deps.endings.failed(key, { class: 'infrastructure', code: 'worker_lost', message, param: null, logTail: [] }, isOtherBoot ? 'lost' : 'failed');
    }
  }

  private async credit(credit: { jobs: number; modelsOnDisk: readonly string[]; modelInMemory: string | null }): Promise<void> {
    if (!(await this.deps.store.setCredit(this.requireWorkerId(), this.id, credit))) return this.fence();
  }

  private async renew(keys: readonly AttemptKey[], memoryBytesFree: number): Promise<void> {
    if (!(await this.deps.store.touchWorker(this.requireWorkerId(), this.id, { memoryBytesFree }))) return this.fence();
    for (const key of keys) await this.renewOne(key);
  }

  private async renewOne(key: AttemptKey): Promise<void> {
    const { leaseMs } = this.deps.settings;
    if (!(await this.isOwn(key)) || (await this.deps.store.renewLease(key, leaseMs)) === 'stale') return this.sendStop(key, 'stale');
    this.send({ $case: 'lease', value: { attempt: key, validForMs: leaseMs } });
  }

  private async acknowledge(key: AttemptKey): Promise<void> {
    const { leaseMs } = this.deps.settings;
    this.unanswered.delete(key.attemptId);
    if (!(await this.isOwn(key)) || (await this.deps.store.acknowledge(key, leaseMs)) === 'stale') return this.sendStop(key, 'stale');
    this.send({ $case: 'lease', value: { attempt: key, validForMs: leaseMs } });
  }

  private async append(key: AttemptKey, events: readonly WorkerEvent[]): Promise<void> {
    if (!(await this.isOwn(key))) return this.send({ $case: 'eventAck', value: { attempt: key, seq: 0, stale: true } });
    const checked: WorkerEvent[] = [];
    for (const event of events) checked.push(event.type === 'checkpoint' ? await this.checkpointOrWarning(key, event) : event);
    const { result, lastSeq } = await this.deps.store.appendEvents(key, checked);
    this.send({ $case: 'eventAck', value: { attempt: key, seq: lastSeq, stale: result === 'stale' } });
  }

  /** A checkpoint whose artifacts are not all stored could not be resumed from: it is noted, not registered. */
  private async checkpointOrWarning(key: AttemptKey, event: WorkerEvent & { type: 'checkpoint' }): Promise<WorkerEvent> {
    try {
      await this.requireSent(key, event.artifacts);
      await requireStored(event.artifacts, this.deps.blobs);
      return event;
    } catch (error) {
      if (!(error instanceof TunefleetError)) throw error;
      return { seq: event.seq, type: 'log', level: 'warn', message: `The checkpoint of step ${event.step} was ignored: ${error.publicMessage}`, data: null };
    }
  }

  /** Of what the store holds a worker may use only what was sent for its own job. @throws incompatible_artifact */
  private async requireSent(key: AttemptKey, artifacts: readonly ArtifactRef[]): Promise<void> {
    const [missing] = await this.deps.access.missingUploads(key.jobId, artifacts);
    if (missing !== undefined) throw new TunefleetError('incompatible_artifact', `artifact ${missing.name} (${missing.sha256}, ${missing.bytes} bytes) was reported but never sent for this job`);
  }

  private async finish(finished: FinishedInput): Promise<void> {
    const { attempt: key, outcome } = finished;
    let result: FencedResult;
    if (!(await this.isOwn(key))) return this.send({ $case: 'finishedAck', value: { attempt: key, stale: true } });
    switch (outcome.$case) {
      case 'succeeded':
        result = await this.succeeded(key, outcome.value);
        break;
      case 'failed':
        result = await this.deps.endings.failed(key, outcome.value, 'failed');
        break;
      case 'stopped':
        result = await this.deps.endings.stopped(key, outcome.value.reason);
        break;
      default:
        return assertNever(outcome, 'outcome');
    }
    this.send({ $case: 'finishedAck', value: { attempt: key, stale: result === 'stale' } });
  }

  private async succeeded(key: AttemptKey, { resultJson, artifacts }: { readonly resultJson: JsonObject | null; readonly artifacts: readonly ArtifactRef[] }): Promise<FencedResult> {
    try {
      await this.requireSent(key, artifacts);
    } catch (error) {
      if (errorCode(error) !== 'incompatible_artifact') throw error;
      return this.deps.endings.failed(key, { class: 'infrastructure', code: 'invalid_result', message: errorMessage(error), param: null, logTail: [] }, 'failed');
    }
    return this.deps.endings.succeeded(key, resultJson, artifacts);
  }

  /** Sends every assignment and stop the record says is owed and this session has not carried yet. */
  private async sendOwed(): Promise<void> {
    // Not known to the record yet; once it is, what is owed is looked up anyway.
    if (this.workerId === null) return;
    if (this.owed !== 'idle') {
      this.owed = 'again';
      return;
    }
    try {
      do {
        this.owed = 'sending';
        await this.sendOwedOnce(this.requireWorkerId());
      } while (this.owedAgain());
    } finally {
      this.owed = 'idle';
    }
  }

  private owedAgain(): boolean {
    return this.owed === 'again' && !this.isClosed;
  }

  private async sendOwedOnce(workerId: string): Promise<void> {
    const { store, settings } = this.deps;
    const [stops, owed] = await Promise.all([store.listStopRequests(workerId), store.listUnacknowledged(workerId, settings.leaseMs)]);
    for (const { key, reason, graceMs } of stops) {
      if (this.stopped.get(key.attemptId) !== reason) this.sendStop(key, reason, graceMs);
    }
    await this.stopTakenBack(workerId, new Set(owed.map(({ key }) => key.attemptId)));
    for (const assignment of owed) {
      if (this.assigned.has(assignment.key.attemptId)) continue;
      this.assigned.add(assignment.key.attemptId);
      this.unanswered.set(assignment.key.attemptId, assignment.key);
      this.own.add(ownKey(assignment.key));
      this.send({ $case: 'assign', value: toAssign(assignment, settings.leaseMs) });
    }
  }

  /** What was taken back because no answer came may be running there all the same, beside what is sent next. */
  private async stopTakenBack(workerId: string, owedIds: ReadonlySet<string>): Promise<void> {
    const gone = [...this.unanswered.values()].filter(({ attemptId }) => !owedIds.has(attemptId));
    if (gone.length === 0) return;
    // Read later than what is owed: one that was asked to stop meanwhile is not over.
    const stopping = new Set((await this.deps.store.listStopRequests(workerId)).map(({ key }) => key.attemptId));
    for (const key of gone) {
      if (stopping.has(key.attemptId) || !this.unanswered.delete(key.attemptId)) continue;
      this.sendStop(key, 'stale');
    }
  }

  private sendStop(key: AttemptKey, reason: string, graceMs = 0): void {
    this.stopped.set(key.attemptId, reason);
    this.send({ $case: 'stop', value: { attempt: key, reason, graceMs } });
  }

  private send(message: NonNullable<fleet.ServerMessage['message']>): void {
    this.stream.send({ message });
  }

  /**
   * Whether the attempt was given to this worker, in this boot of it. What is not its own is answered like what is over: the worker drops it, and
   * learns nothing of the attempt.
   */
  private async isOwn(key: AttemptKey): Promise<boolean> {
    const wanted = ownKey(key);
    if (this.own.has(wanted)) return true;
    for (const { jobId, id, epoch, workerBootId } of await this.deps.store.listLiveAttempts(this.requireWorkerId())) {
      if (workerBootId === this.bootId) this.own.add(ownKey({ jobId, attemptId: id, epoch }));
    }
    if (this.own.has(wanted)) return true;
    this.deps.logger.warn({ ...key, workerId: this.workerId }, 'a worker spoke of an attempt that is over or not its own');
    return false;
  }

  private requireWorkerId(): string {
    if (this.workerId === null) throw new TunefleetError('invariant', 'a session acted before its hello');
    return this.workerId;
  }
}

function ownKey({ jobId, attemptId, epoch }: AttemptKey): string {
  return `${jobId} ${attemptId} ${epoch}`;
}

function toAssign({ key, job, resume }: AssignmentRecord, leaseMs: number): fleet.Assign {
  const spec: JsonObject = job.workerSpec ?? {};
  return {
    attempt: key,
    kind: job.kind,
    schemaVersion: job.schemaVersion,
    specJson: JSON.stringify(spec),
    inputs: collectArtifacts(spec),
    resume: resume === null ? undefined : { step: resume.step, artifacts: resume.artifacts.map((artifact: ArtifactRef) => ({ ...artifact })) },
    leaseMs,
  };
}
