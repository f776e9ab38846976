import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { fleet } from '@tunefleet/contracts';
import { ManualClock, silentLogger } from '@tunefleet/foundation';
import type { ToEngine } from '../engine-protocol';
import { Attempt, type AttemptDeps } from './attempt';
import { attemptFolder } from './attempt-folder';
import type { EngineExit } from './engine-process';
import { defaultAgentSettings } from './settings';

const ref = { jobId: 'ftjob-1', attemptId: 'att-1', epoch: 1 };
const assign: fleet.Assign & { attempt: fleet.AttemptRef } = { attempt: ref, kind: 'fine-tune', schemaVersion: 1, specJson: '{}', inputs: [], resume: undefined, leaseMs: 600_000 };

let workDir: string;
let attempt: Attempt;
let toEngine: ToEngine[];
let wake: () => void;

beforeEach(async () => {
  workDir = await mkdtemp(join(tmpdir(), 'attempt-'));
  toEngine = [];
  wake = () => undefined;
  attempt = new Attempt(assign, {
    settings: defaultAgentSettings,
    cache: { release: () => undefined } as unknown as AttemptDeps['cache'],
    transfer: {} as AttemptDeps['transfer'],
    folder: attemptFolder(workDir),
    clock: new ManualClock(0),
    logger: silentLogger,
    engine: { send: (message) => toEngine.push(message) > 0, kill: () => undefined, recentLines: [] },
    onOutput: () => wake(),
  });
  await attempt.start();
});
afterEach(async () => {
  await attempt.close();
  await rm(workDir, { recursive: true, force: true });
});

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
