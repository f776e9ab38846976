import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { fleet } from '@tunefleet/contracts';
import { ManualClock, silentLogger, systemClock, type Clock } from '@tunefleet/foundation';
import type { ToEngine } from '../engine-protocol';
import { Attempt, type AttemptDeps } from './attempt';
import { attemptFolder } from './attempt-folder';
import type { EngineExit } from './engine-process';
import { defaultAgentSettings, type AgentSettings } from './settings';

const ref = { jobId: 'ftjob-1', attemptId: 'att-1', epoch: 1 };
const assign: fleet.Assign & { attempt: fleet.AttemptRef } = { attempt: ref, kind: 'fine-tune', schemaVersion: 1, specJson: '{}', inputs: [], resume: undefined, leaseMs: 600_000 };

let workDir: string;
let attempt: Attempt;
let toEngine: ToEngine[];
let kills: number;
let wake: () => void;

beforeEach(async () => {
  workDir = await mkdtemp(join(tmpdir(), 'attempt-'));
  toEngine = [];
  kills = 0;
  wake = () => undefined;
  await begin(defaultAgentSettings);
});
afterEach(async () => {
  await attempt.close();
  await rm(workDir, { recursive: true, force: true });
});

async function begin(settings: AgentSettings, clock: Clock = new ManualClock(0)): Promise<void> {
  attempt = new Attempt(assign, {
    settings,
    cache: { release: () => undefined } as unknown as AttemptDeps['cache'],
    transfer: {} as AttemptDeps['transfer'],
    folder: attemptFolder(workDir),
    clock,
    logger: silentLogger,
    engine: { send: (message) => toEngine.push(message) > 0, kill: () => kills++, recentLines: [] },
    onOutput: () => wake(),
  });
  await attempt.start();
}

const exit = (changes: Partial<EngineExit>): EngineExit => ({ code: null, signal: 'SIGKILL', outOfMemory: false, logTail: ['last line'], crashes: 1, ...changes });

/** What the attempt says last, once it has something to say. */
async function ending(): Promise<fleet.Finished['outcome']> {
  for (;;) {
    const message = attempt.nextMessage();
    if (message?.$case === 'finished') return message.value.outcome;
    await new Promise<void>((resolve) => (wake = resolve));
  }
}

test.each([
  [true, 'resource', 'out_of_memory'],
  [false, 'infrastructure', 'engine_crashed'],
])('an engine that dies, killed for lack of memory: %s, is a failure of the class %s', async (outOfMemory, failureClass, code) => {
  attempt.onEngineExit(exit({ outOfMemory }));
  expect(await ending()).toMatchObject({ $case: 'failed', value: { failureClass, code, logTail: ['last line'] } });
});

test('an engine that was killed because it did not stop has not failed', async () => {
  attempt.stop('paused', 50);
  expect(toEngine.at(-1)).toEqual({ type: 'stop', runId: 'att-1', checkpoint: true });
  attempt.onEngineExit(exit({ outOfMemory: true }));
  expect(await ending()).toEqual({ $case: 'stopped', value: { reason: 'paused' } });
});

test('a cancel goes over a pause: the checkpoint is given up', () => {
  attempt.stop('paused', 60_000);
  attempt.stop('cancelled', 0);
  expect(toEngine.slice(-2)).toEqual([true, false].map((checkpoint) => ({ type: 'stop', runId: 'att-1', checkpoint })));
});

test('an engine that is silent for too long is asked, killed, and not waited for should even that not end it', async () => {
  await attempt.close();
  await begin({ ...defaultAgentSettings, engineSilenceMs: 60, stopMs: 20 }, systemClock);
  let first: ReturnType<Attempt['nextMessage']> = null;
  while ((first = attempt.nextMessage()) === null) await new Promise<void>((resolve) => (wake = resolve));
  expect(first).toMatchObject({ $case: 'events', value: { events: [{ payload: { $case: 'log', value: { level: 'warn', dataJson: '{"code":"stuck","phase":null}' } } }] } });
  attempt.onEventAck({ attempt: ref, seq: 1, stale: false });
  expect(await ending()).toMatchObject({ $case: 'failed', value: { failureClass: 'infrastructure', code: 'stuck' } });
  expect(toEngine.at(-1)).toEqual({ type: 'stop', runId: 'att-1', checkpoint: false });
  expect(kills).toBe(1);
});
