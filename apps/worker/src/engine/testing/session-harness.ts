import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { artifactRefSchema, type ArtifactRef } from '@tunefleet/contracts';
import { EngineResources } from '@tunefleet/ml-jobs';
import { ModelResolver } from '@tunefleet/ml-models';
import { openDevice } from '@tunefleet/ml-tensor';
import { writeTinyModel } from '@tunefleet/testing';
import { fromEngineSchema, type FromEngine, type ToEngine } from '../../engine-protocol';
import { EngineSession } from '../session';

export type Answer = Extract<FromEngine, { type: 'succeeded' | 'failed' | 'stopped' }>;
type Run = Extract<ToEngine, { type: 'run' }>;

/** The engine's session in this process, with a tiny model in a folder and everything it sends kept. Messages pass the protocol's schema. */
export class SessionHarness {
  readonly sent: FromEngine[] = [];
  readonly session: EngineSession;
  readonly inputFiles = new Map<string, string>();
  exited = 0;
  private runs = 0;
  private readonly waiting = new Map<string, (answer: Answer) => void>();
  /** Called with every message. */
  onMessage: (message: FromEngine) => void = () => undefined;

  private constructor(
    readonly folder: string,
    readonly engine: EngineResources,
  ) {
    this.session = new EngineSession(
      engine,
      (message) => this.take(fromEngineSchema.parse(JSON.parse(JSON.stringify(message)))),
      () => this.exited++,
    );
  }

  static async open(): Promise<SessionHarness> {
    const folder = mkdtempSync(join(tmpdir(), 'engine-session-'));
    // With an output head of its own a random model writes something; with a tied one it repeats the last token.
    await writeTinyModel(join(folder, 'model'), { tieWordEmbeddings: false });
    await writeTinyModel(join(folder, 'other-model'), { tieWordEmbeddings: false, seed: 2 });
    const resolver = new ModelResolver({ cacheDirectory: join(folder, 'cache'), hubEndpoint: 'http://127.0.0.1:9', order: [], localRoots: [folder], mirror: { python: 'no-such-python' }, catalogue: [] });
    const device = await openDevice({ backend: 'auto' });
    return new SessionHarness(folder, new EngineResources({ device, resolver, tokenCacheDirectory: join(folder, 'tokens') }));
  }

  /** The tiny model as a spec names it. */
  async base(name: 'model' | 'other-model' = 'model'): Promise<{ id: string; revision: string }> {
    const { id, revision } = await this.engine.resolver.describe(join(this.folder, name));
    return { id, revision };
  }

  /** Makes a file an input artifact. */
  input(name: string, content: string | Uint8Array): ArtifactRef {
    const path = join(this.folder, `input-${this.inputFiles.size}-${name}`);
    writeFileSync(path, content);
    const sha256 = createHash('sha256').update(content).digest('hex');
    this.inputFiles.set(sha256, path);
    return artifactRefSchema.parse({ name, sha256, bytes: statSync(path).size });
  }

  /** Makes the files of a folder input artifacts. */
  inputFolder(dir: string): ArtifactRef[] {
    return readdirSync(dir).map((name) => this.input(name, readFileSync(join(dir, name))));
  }

  /** Starts a run and resolves with its answer. */
  run(kind: string, spec: object, options: Partial<Run> = {}): Promise<Answer> & { readonly runId: string; readonly outputDir: string } {
    const runId = `run-${++this.runs}`;
    const outputDir = join(this.folder, runId);
    mkdirSync(outputDir);
    const answer = new Promise<Answer>((resolve) => this.waiting.set(runId, resolve));
    this.session.receive({ type: 'run', runId, kind, schemaVersion: 1, spec: { ...spec }, inputFiles: Object.fromEntries(this.inputFiles), resumeDir: null, outputDir, ...options } satisfies Run);
    return Object.assign(answer, { runId, outputDir });
  }

  of<T extends FromEngine['type']>(type: T, runId: string): Extract<FromEngine, { type: T }>[] {
    return this.sent.filter((message): message is Extract<FromEngine, { type: T }> => message.type === type && 'runId' in message && message.runId === runId);
  }

  close(): void {
    this.engine.close();
    if (existsSync(this.folder)) rmSync(this.folder, { recursive: true });
  }

  private take(message: FromEngine): void {
    this.sent.push(message);
    this.onMessage(message);
    if (message.type === 'succeeded' || message.type === 'failed' || message.type === 'stopped') this.waiting.get(message.runId)?.(message);
  }
}
