import type { Failure } from '@tunefleet/contracts';
import { classifyFailure, runJob, StopRequest, type EngineResources, type JobEvents } from '@tunefleet/ml-jobs';
import { assertNever, errorMessage, systemClock } from '@tunefleet/foundation';
import { toEngineSchema, type FromEngine, type ToEngine } from '../engine-protocol';

type RunMessage = Extract<ToEngine, { type: 'run' }>;

/**
 * The engine's side of the protocol: takes messages, runs the jobs it is given side by side, answers every run with exactly one of
 * `succeeded`, `failed`, `stopped`. How many there are is the agent's business. Knows nothing of the channel, so tests drive it directly.
 */
export class EngineSession {
  /** By run id. */
  readonly #active = new Map<string, StopRequest>();

  constructor(
    private readonly engine: EngineResources,
    private readonly send: (message: FromEngine) => void,
    private readonly exit: () => void,
  ) {}

  get busy(): boolean {
    return this.#active.size > 0;
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
        this.#active.get(message.runId)?.request(message.checkpoint);
        return;
      case 'exit':
        this.exit();
        return;
      default:
        assertNever(message, 'message to the engine');
    }
  }

  /** Reports every run as failed; for errors that escaped theirs, which cannot be told. The process must end afterwards. */
  crash(error: unknown): void {
    const failure = { ...classifyFailure(error), class: 'infrastructure', code: 'engine_crashed' } as const;
    const runIds = [...this.#active.keys()];
    this.#active.clear();
    for (const runId of runIds) this.send({ type: 'failed', runId, failure });
  }

  async #run(message: RunMessage): Promise<void> {
    const { runId } = message;
    if (this.#active.has(runId)) {
      process.stderr.write(`engine: dropped a second order to run ${runId}\n`);
      return;
    }
    const stop = new StopRequest();
    this.#active.set(runId, stop);
    const answer = await this.#answer(message, stop);
    if (this.#active.get(runId) !== stop) return;
    this.#active.delete(runId);
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
      return { type: 'failed', runId, failure: this.#failureOf(error) };
    }
  }

  /** Memory that several runs share is nobody's fault: by itself the run may well fit. */
  #failureOf(error: unknown): Failure {
    const failure = classifyFailure(error);
    const others = this.#active.size - 1;
    if (failure.class !== 'resource' || others <= 0) return failure;
    return { ...failure, class: 'infrastructure', code: 'no_memory_beside_others', message: `beside ${others === 1 ? 'another job' : `${others} other jobs`} in this engine: ${failure.message}`.slice(0, 4000) };
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
