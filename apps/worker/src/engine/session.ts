import { classifyFailure, runJob, StopRequest, type EngineResources, type JobEvents } from '@tunefleet/ml-jobs';
import { assertNever, errorMessage, systemClock } from '@tunefleet/foundation';
import { toEngineSchema, type FromEngine, type ToEngine } from '../engine-protocol';

type RunMessage = Extract<ToEngine, { type: 'run' }>;

interface ActiveRun {
  readonly runId: string;
  readonly stop: StopRequest;
}

/**
 * The engine's side of the protocol: takes messages, runs one job at a time, answers every run with exactly one of
 * `succeeded`, `failed`, `stopped`. Knows nothing of the channel, so tests drive it directly.
 */
export class EngineSession {
  #active: ActiveRun | null = null;

  constructor(
    private readonly engine: EngineResources,
    private readonly send: (message: FromEngine) => void,
    private readonly exit: () => void,
  ) {}

  get busy(): boolean {
    return this.#active !== null;
  }

  /** @param raw as it came from the channel. A message we cannot read is a bug of the agent; it is named on stderr and dropped. */
  receive(raw: unknown): void {
    const parsed = toEngineSchema.safeParse(raw);
    if (!parsed.success) {
      process.stderr.write(`engine: dropped a message it does not understand: ${parsed.error.issues[0]?.message ?? 'unknown shape'}\n`);
      return;
    }
    const message = parsed.data;
    switch (message.type) {
      case 'run':
        void this.#run(message);
        return;
      case 'stop':
        if (this.#active?.runId === message.runId) this.#active.stop.request(message.checkpoint);
        return;
      case 'exit':
        this.exit();
        return;
      default:
        assertNever(message, 'message to the engine');
    }
  }

  /** Reports the current run as failed; for errors that escaped it. The process must end afterwards. */
  crash(error: unknown): void {
    const active = this.#active;
    this.#active = null;
    if (active) this.send({ type: 'failed', runId: active.runId, failure: { ...classifyFailure(error), class: 'infrastructure', code: 'engine_crashed' } });
  }

  async #run(message: RunMessage): Promise<void> {
    const { runId } = message;
    if (this.#active !== null) {
      this.send({
        type: 'failed',
        runId,
        failure: { class: 'platform', code: 'engine_busy', message: `the engine is still running ${this.#active.runId}; it takes one job at a time`, param: null, logTail: [] },
      });
      return;
    }
    const active: ActiveRun = { runId, stop: new StopRequest() };
    this.#active = active;
    const answer = await this.#answer(message, active.stop);
    if (this.#active !== active) return;
    this.#active = null;
    this.send(answer);
  }

  async #answer(message: RunMessage, stop: StopRequest): Promise<FromEngine> {
    const { runId } = message;
    try {
      const outcome = await runJob(message.kind, message.schemaVersion, {
        spec: message.spec,
        inputFiles: new Map(Object.entries(message.inputFiles)),
        resumeDir: message.resumeDir,
        outputDir: message.outputDir,
        events: this.#eventsOf(runId),
        stop,
        engine: this.engine,
        clock: systemClock,
      });
      if (outcome.type === 'stopped') return { type: 'stopped', runId };
      return { type: 'succeeded', runId, result: { ...outcome.result }, dir: outcome.folder.dir, files: [...outcome.folder.files] };
    } catch (error) {
      process.stderr.write(`engine: run ${runId} failed: ${error instanceof Error ? (error.stack ?? error.message) : errorMessage(error)}\n`);
      return { type: 'failed', runId, failure: classifyFailure(error) };
    }
  }

  #eventsOf(runId: string): JobEvents {
    return {
      log: (level, text, data) => this.send({ type: 'log', runId, level, message: text, ...(data === undefined ? {} : { data }) }),
      metrics: (step, values) => this.send({ type: 'metrics', runId, step, values: { ...values } }),
      progress: (progress) => this.send({ type: 'progress', runId, ...progress }),
      checkpoint: (step, folder, metrics) => this.send({ type: 'checkpoint', runId, step, dir: folder.dir, files: [...folder.files], metrics: { ...metrics } }),
      model: (inMemory, onDisk) => this.send({ type: 'model', runId, inMemory, onDisk: [...onDisk] }),
    };
  }
}
