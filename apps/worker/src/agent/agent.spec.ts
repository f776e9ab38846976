/** The agent with several attempts: a control plane and an engine that do what a test says, real gRPC between. */
import { credentials, Server, ServerCredentials, status, type ServerDuplexStream } from '@grpc/grpc-js';
import { fleet } from '@tunefleet/contracts';
import { silentLogger, systemClock, TunefleetError, type Timers } from '@tunefleet/foundation';
import { until } from '@tunefleet/testing';
import type { FromEngine, ToEngine } from '../engine-protocol';
import { Agent, type AgentParts, type Engine } from './agent';
import { Membership } from './membership';
import type { AgentSettings } from './settings';

type Call = ServerDuplexStream<fleet.WorkerMessage, fleet.ServerMessage>;
type Callbacks = Parameters<AgentParts['engine']>[0];
type Said<K extends WorkerCase> = Extract<NonNullable<fleet.WorkerMessage['message']>, { $case: K }>['value'];
type WorkerCase = NonNullable<fleet.WorkerMessage['message']>['$case'];
type ServerSays = NonNullable<fleet.ServerMessage['message']>;

const TIMEOUT_MS = 10_000;
const DEVICE = { kind: 'cpu', name: 'fake', backend: 'none', backendVersion: '1', memoryBytesTotal: 1, memoryBytesFree: 1, bf16: false, threads: 1 } as const;

/** An agent is not made to live on without its process: leases and watches of what it ran do not keep this one. */
const timers: Timers = {
  after: (ms, run) => {
    const timer = setTimeout(run, ms).unref();
    return { cancel: () => clearTimeout(timer) };
  },
  every: (ms, run) => {
    const timer = setInterval(run, ms).unref();
    return { cancel: () => clearInterval(timer) };
  },
};

/** Takes what it is sent, and says what a test says for it. */
class FakeEngine implements Engine {
  isReady = false;
  readonly pid = undefined;
  readonly recentLines: readonly string[] = [];
  readonly got: ToEngine[] = [];
  kills = 0;

  constructor(private readonly callbacks: Callbacks) {}

  start(): void {
    this.isReady = true;
    this.callbacks.onReady(DEVICE, ['fine-tune']);
  }

  send(message: ToEngine): boolean {
    this.got.push(message);
    return this.isReady;
  }

  kill(): void {
    this.kills++;
    this.exit();
  }

  async stop(): Promise<void> {
    this.isReady = false;
  }

  say(message: FromEngine): void {
    this.callbacks.onMessage(message);
  }

  exit(outOfMemory = false): void {
    this.isReady = false;
    this.callbacks.onExit({ code: null, signal: 'SIGKILL', outOfMemory, logTail: [], crashes: 1 });
    this.start();
  }

  stopsOf(runId: string): boolean[] {
    return this.got.flatMap((message) => (message.type === 'stop' && message.runId === runId ? [message.checkpoint] : []));
  }

  get running(): string[] {
    return this.got.flatMap((message) => (message.type === 'run' ? [message.runId] : []));
  }
}

let server: Server;
let calls: Call[];
let heard: fleet.WorkerMessage['message'][];
let protocolVersion: number;
let port: number;
let agent: Agent;
let engine: FakeEngine;
let failUploadsOf: string | null;
let released: string[][];

beforeEach(async () => {
  [calls, heard, protocolVersion, failUploadsOf, released] = [[], [], 2, null, []];
  server = new Server();
  server.addService(fleet.FleetService, {
    join: (_call: unknown, done: (error: null, answer: fleet.JoinResponse) => void) => done(null, {}),
    session: (call: Call) => {
      calls.push(call);
      call.on('error', () => undefined);
      call.on('data', ({ message }: fleet.WorkerMessage) => {
        heard.push(message);
        if (message?.$case === 'hello') tell({ $case: 'welcome', value: { protocolVersion, sessionId: `s-${calls.length}`, beatIntervalMs: 20, leaseMs: 60_000, artifactChunkBytes: 1_000 } });
        if (message?.$case === 'events') tell({ $case: 'eventAck', value: { attempt: message.value.attempt, seq: message.value.events.at(-1)?.seq ?? 0, stale: false } });
        if (message?.$case === 'finished') tell({ $case: 'finishedAck', value: { attempt: message.value.attempt, stale: false } });
      });
    },
    putArtifact: () => undefined,
    getArtifact: () => undefined,
  });
  port = await new Promise<number>((resolve, reject) => server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => (error === null ? resolve(bound) : reject(error))));
});
afterEach(async () => {
  await agent.kill();
  server.forceShutdown();
});

async function begin(slots: number, settings: Partial<AgentSettings> = {}): Promise<void> {
  const client = new fleet.FleetClient(`127.0.0.1:${port}`, credentials.createInsecure());
  const parts: AgentParts = {
    client,
    membership: new Membership({ client, joinToken: 'token', workerDir: '', name: 'one', labels: {}, logger: silentLogger, load: async () => ({ secret: 'a'.repeat(43), isNew: false }) }),
    cache: { ensure: async ({ sha256 }) => sha256, adopt: async () => undefined, release: (sha256s) => void released.push([...sha256s]) },
    transfer: {
      upload: async ({ attemptId }) => {
        if (attemptId === failUploadsOf) throw new TunefleetError('unavailable', 'no room');
      },
      download: async () => undefined,
    },
    engine: (callbacks) => (engine = new FakeEngine(callbacks)),
    open: async () => ({ workerId: 'wrk-1', bootId: 'boot-1' }),
    folderOf: () => ({ create: async () => 'output', createResume: async () => 'resume', link: async () => undefined, removeCheckpoint: async () => undefined, remove: async () => undefined }),
    mainMemoryBytesFree: () => 1,
  };
  agent = new Agent(
    {
      ...{ controlPlane: '', channel: { credentials: credentials.createInsecure(), options: {} }, joinToken: null, name: 'one', labels: {}, slots, version: '1', workerDir: '', artifactCacheBytes: 0 },
      ...{ engine: { file: '', env: {} }, settings: { reconnect: { firstMs: 5, factor: 1, maxMs: 5 }, ...settings }, clock: systemClock, timers, logger: silentLogger },
      ...{ onReady: () => undefined, onRefused: () => undefined },
    },
    parts,
  );
  await agent.start();
  await said('credit');
}

const refOf = (id: string): fleet.AttemptRef => ({ jobId: `job-${id}`, attemptId: id, epoch: 1 });

function tell(message: ServerSays): void {
  calls.at(-1)?.write({ message });
}

function all<K extends WorkerCase>(kind: K): Said<K>[] {
  return heard.flatMap((message) => (message?.$case === kind ? [message.value as Said<K>] : []));
}

async function said<K extends WorkerCase>(kind: K, is: (value: Said<K>) => boolean = () => true): Promise<Said<K>> {
  let found: readonly Said<K>[] = [];
  await until(`a ${kind}`, () => (found = all(kind).filter(is)).length > 0, { timeoutMs: TIMEOUT_MS, detail: () => JSON.stringify(heard.at(-1)) });
  const [first] = found;
  if (first === undefined) throw new Error('it was there');
  return first;
}

const finished = (id: string): Promise<Said<'finished'>> => said('finished', ({ attempt }) => attempt?.attemptId === id);
const credit = (jobs: number): Promise<unknown> => until(`credit ${jobs}`, () => all('credit').at(-1)?.jobs === jobs);

async function assign(...ids: readonly string[]): Promise<void> {
  for (const id of ids) tell({ $case: 'assign', value: { attempt: refOf(id), kind: 'fine-tune', schemaVersion: 1, specJson: '{}', inputs: [{ name: 'data', sha256: `of-${id}`, bytes: 1 }], resume: undefined, leaseMs: 60_000 } });
  await until('runs', () => ids.every((id) => engine.running.includes(id)));
}

const stop = (id: string, reason: string, graceMs = 0): void => tell({ $case: 'stop', value: { attempt: refOf(id), reason, graceMs } });
const step = (runId: string, number: number): void => engine.say({ type: 'metrics', runId, step: number, values: { train_loss: number } });
const succeed = (runId: string): void => engine.say({ type: 'succeeded', runId, result: {}, dir: 'result', files: [{ name: 'adapter', sha256: `adapter-of-${runId}`, bytes: 1 }] });

test('jobs up to its slots, each told of by itself; one more is refused, and its place is free when one has ended', async () => {
  await begin(2);
  expect(all('hello')[0]).toMatchObject({ protocolVersion: 2, slots: 2 });
  await credit(2);
  await assign('a', 'b');
  await credit(0);
  tell({ $case: 'assign', value: fleet.Assign.fromPartial({ attempt: refOf('c'), kind: 'fine-tune', specJson: '{}', leaseMs: 60_000 }) });
  expect(await said('assignAck', ({ accepted }) => !accepted)).toMatchObject({ attempt: refOf('c'), reason: 'the worker takes 2 at once and has a, b' });
  step('a', 1);
  step('b', 7);
  await said('beat', ({ running }) => running.map(({ attempt, step: at }) => `${attempt?.attemptId} ${at}`).join() === 'a 1,b 7');
  succeed('a');
  expect(await finished('a')).toMatchObject({ attempt: refOf('a'), lastSeq: 1, outcome: { $case: 'succeeded' } });
  await credit(1);
  expect(released).toEqual([['of-a']]);
  step('b', 8);
  await said('events', ({ attempt, events }) => attempt?.attemptId === 'b' && events.some(({ seq }) => seq === 2));
  await assign('c');
  expect(agent.health().attemptIds).toEqual(['b', 'c']);
});

test('a stop concerns one of them', async () => {
  await begin(3);
  await assign('a', 'b', 'c');
  stop('b', 'cancelled');
  stop('c', 'paused', 10_000);
  await until('stops', () => engine.stopsOf('b').length + engine.stopsOf('c').length === 2);
  expect([engine.stopsOf('a'), engine.stopsOf('b'), engine.stopsOf('c')]).toEqual([[], [false], [true]]);
  engine.say({ type: 'stopped', runId: 'b' });
  engine.say({ type: 'stopped', runId: 'c' });
  expect([(await finished('b')).outcome, (await finished('c')).outcome]).toEqual(['cancelled', 'paused'].map((reason) => ({ $case: 'stopped', value: { reason } })));
  succeed('a');
  expect((await finished('a')).outcome?.$case).toBe('succeeded');
  expect(engine.kills).toBe(0);
  await credit(3);
});

test('after a cut all of them are said to run, and what was not acknowledged is sent again', async () => {
  await begin(2);
  await assign('a', 'b');
  calls.at(-1)?.emit('error', { code: status.UNAVAILABLE, details: 'cut' });
  step('b', 3);
  await until('a second hello', () => all('hello').length === 2);
  expect(all('hello')[1]?.running.map(({ attempt }) => attempt)).toEqual([refOf('a'), refOf('b')]);
  await said('events', ({ attempt }) => attempt?.attemptId === 'b');
  // The record has given b to somebody else meanwhile.
  stop('b', 'stale');
  await until('a stop', () => engine.stopsOf('b').length > 0);
  engine.say({ type: 'stopped', runId: 'b' });
  await finished('b');
  expect(agent.health().attemptIds).toContain('a');
});

test('an engine that dies fails all of them, by infrastructure', async () => {
  await begin(2);
  await assign('a', 'b');
  engine.exit(true);
  for (const id of ['a', 'b']) expect((await finished(id)).outcome).toMatchObject({ $case: 'failed', value: { failureClass: 'infrastructure', code: 'out_of_memory' } });
  await credit(2);
  await assign('c');
  engine.exit(true);
  expect((await finished('c')).outcome).toMatchObject({ $case: 'failed', value: { failureClass: 'resource', code: 'out_of_memory' } });
});

test('for one that does not stop the engine is killed late, and the others go on elsewhere', async () => {
  await begin(2, { stopMs: 10, sharedStopMs: 150 });
  await assign('a', 'b');
  stop('a', 'cancelled');
  await until('a stop', () => engine.stopsOf('a').length > 0);
  const askedAt = performance.now();
  expect((await finished('b')).outcome).toMatchObject({ $case: 'failed', value: { failureClass: 'infrastructure', code: 'engine_killed' } });
  expect(performance.now() - askedAt).toBeGreaterThan(100);
  expect((await finished('a')).outcome).toEqual({ $case: 'stopped', value: { reason: 'cancelled' } });
  expect(engine.kills).toBe(1);
});

test('one that hangs before its first word is noticed beside others that speak, and ends alone', async () => {
  await begin(3, { engineSilenceMs: 300, stopMs: 10, sharedStopMs: 60 });
  await assign('a', 'b');
  const speaking = timers.every(10, () => step('b', 1));
  expect((await finished('a')).outcome).toMatchObject({ $case: 'failed', value: { failureClass: 'infrastructure', code: 'stuck', message: expect.stringMatching(/^nothing heard from the engine for 0 s since it was given the job$/) as string } });
  await until('the end of a', () => agent.health().attemptIds.join() === 'b');
  // The engine still has it, with all it holds.
  expect([engine.stopsOf('a'), engine.stopsOf('b'), engine.kills, all('credit').at(-1)?.jobs]).toEqual([[false], [], 0, 0]);
  speaking.cancel();
  succeed('b');
  expect((await finished('b')).outcome?.$case).toBe('succeeded');
  expect(engine.kills).toBe(1);
  await credit(3);
  await assign('c');
});

test('an engine that says nothing any more is killed, and all of them go on elsewhere', async () => {
  await begin(2, { engineSilenceMs: 150, stopMs: 10, sharedStopMs: 20 });
  await assign('a', 'b');
  for (const id of ['a', 'b']) expect((await finished(id)).outcome).toMatchObject({ $case: 'failed', value: { failureClass: 'infrastructure' } });
  expect(engine.kills).toBe(1);
  await credit(2);
});

test('an upload that fails ends its own run; its slot is taken until the engine has let go', async () => {
  await begin(2);
  await assign('a', 'b');
  failUploadsOf = 'a';
  engine.say({ type: 'checkpoint', runId: 'a', step: 1, dir: 'ckpt-1', files: [{ name: 'state', sha256: 'x', bytes: 1 }], metrics: {} });
  expect((await finished('a')).outcome).toMatchObject({ $case: 'failed', value: { failureClass: 'infrastructure', code: 'upload_failed' } });
  await until('the end of a', () => agent.health().attemptIds.join() === 'b');
  expect([engine.stopsOf('a'), engine.kills, all('credit').at(-1)?.jobs]).toEqual([[false], 0, 0]);
  engine.say({ type: 'stopped', runId: 'a' });
  await credit(1);
  succeed('b');
  expect((await finished('b')).outcome?.$case).toBe('succeeded');
});

test('nobody comes while the engine has one that the record has closed: the next may be on another base model', async () => {
  await begin(3);
  await assign('a');
  await credit(2);
  failUploadsOf = 'a';
  engine.say({ type: 'checkpoint', runId: 'a', step: 1, dir: 'ckpt-1', files: [{ name: 'state', sha256: 'x', bytes: 1 }], metrics: {} });
  await finished('a');
  await credit(0);
  tell({ $case: 'assign', value: fleet.Assign.fromPartial({ attempt: refOf('b'), kind: 'fine-tune', specJson: '{}', leaseMs: 60_000 }) });
  expect(await said('assignAck', ({ accepted }) => !accepted)).toMatchObject({ attempt: refOf('b'), reason: 'the engine has not let go of a yet' });
  engine.say({ type: 'stopped', runId: 'a' });
  await credit(3);
  await assign('c');
});

test('a shutdown hands all of them back', async () => {
  await begin(2);
  await assign('a', 'b');
  const stopped = agent.stop();
  await credit(0);
  expect([engine.stopsOf('a'), engine.stopsOf('b')]).toEqual([[true], [true]]);
  for (const runId of ['a', 'b']) {
    engine.say({ type: 'checkpoint', runId, step: 2, dir: 'ckpt-2', files: [], metrics: {} });
    engine.say({ type: 'stopped', runId });
  }
  await stopped;
  for (const id of ['a', 'b']) expect((await finished(id)).outcome).toEqual({ $case: 'stopped', value: { reason: 'shutdown' } });
});

test('a control plane of before slots is told of one place at the most', async () => {
  protocolVersion = 1;
  await begin(8);
  await credit(1);
  await assign('a');
  await credit(0);
  succeed('a');
  await finished('a');
  await credit(1);
  expect(Math.max(...all('credit').map(({ jobs }) => jobs))).toBe(1);
});
