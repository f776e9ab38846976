import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { fleet } from '@tunefleet/contracts';
import { ManualClock, silentLogger } from '@tunefleet/foundation';
import { ManualTimers } from '../testing/manual-timers';
import { Attempt, type AttemptDeps } from './attempt';
import { attemptFolder } from './attempt-folder';
import type { EngineEnd } from './engine-runs';
import { defaultAgentSettings, type AgentSettings } from './settings';

const ref = { jobId: 'ftjob-1', attemptId: 'att-1', epoch: 1 };
const assign: fleet.Assign & { attempt: fleet.AttemptRef } = { attempt: ref, kind: 'fine-tune', schemaVersion: 1, specJson: '{}', inputs: [], resume: undefined, leaseMs: 600_000 };

let workDir: string;
let attempt: Attempt;
/** What was asked of the engine. */
let asked: unknown[];
let wake: () => void;

beforeEach(async () => {
  workDir = await mkdtemp(join(tmpdir(), 'attempt-'));
  asked = [];
  wake = () => undefined;
  await begin(defaultAgentSettings);
});
afterEach(async () => {
  await attempt.close();
  await rm(workDir, { recursive: true, force: true });
});

async function begin(settings: AgentSettings, time: Pick<AttemptDeps, 'clock' | 'timers'> = { clock: new ManualClock(0) }): Promise<void> {
  attempt = new Attempt(assign, {
    settings,
    cache: { release: () => undefined } as unknown as AttemptDeps['cache'],
    transfer: {} as AttemptDeps['transfer'],
    folder: attemptFolder(workDir),
    ...time,
    logger: silentLogger,
    engine: {
      begin: ({ runId }) => asked.push(['begin', runId]) > 0,
      end: (runId, { checkpoint, killAfterMs }) => asked.push(['end', runId, { checkpoint, killAfterMs }]),
      recentLines: [],
    },
    onOutput: () => wake(),
  });
  await attempt.start();
}

const exit = (changes: Partial<EngineEnd>): EngineEnd => ({ code: null, signal: 'SIGKILL', outOfMemory: false, logTail: ['last line'], crashes: 1, runIds: ['att-1'], killedFor: null, ...changes });

/** What the attempt says last, once it has something to say. */
async function ending(): Promise<fleet.Finished['outcome']> {
  for (;;) {
    const message = attempt.nextMessage();
    if (message?.$case === 'finished') return message.value.outcome;
    await new Promise<void>((resolve) => (wake = resolve));
  }
}

test.each([
  [{ outOfMemory: true }, 'resource', 'out_of_memory'],
  [{ outOfMemory: false }, 'infrastructure', 'engine_crashed'],
  [{ outOfMemory: true, runIds: ['att-0', 'att-1'] }, 'infrastructure', 'out_of_memory'],
  [{ outOfMemory: false, runIds: ['att-0', 'att-1'] }, 'infrastructure', 'engine_crashed'],
  [{ killedFor: 'att-0', runIds: ['att-0', 'att-1'] }, 'infrastructure', 'engine_killed'],
])('an engine that dies, %j, is a failure of the class %s, %s', async (how, failureClass, code) => {
  attempt.onEngineExit(exit(how));
  expect(await ending()).toMatchObject({ $case: 'failed', value: { failureClass, code, logTail: ['last line'] } });
});

test('an engine that was killed because it did not stop has not failed', async () => {
  attempt.stop('paused', 50);
  expect(asked.at(-1)).toEqual(['end', 'att-1', { checkpoint: true, killAfterMs: 50 }]);
  attempt.onEngineExit(exit({ outOfMemory: true }));
  expect(await ending()).toEqual({ $case: 'stopped', value: { reason: 'paused' } });
});

test('a cancel goes over a pause: the checkpoint is given up', () => {
  attempt.stop('paused', 60_000);
  attempt.stop('cancelled', 0);
  const { stopMs } = defaultAgentSettings;
  expect(asked.slice(-2)).toEqual([{ checkpoint: true, killAfterMs: 60_000 }, { checkpoint: false, killAfterMs: stopMs }].map((how) => ['end', 'att-1', how]));
});

test('silence is noted, given up, and not waited for should the engine not answer', async () => {
  await attempt.close();
  const timers = new ManualTimers();
  await begin({ ...defaultAgentSettings, engineSilenceMs: 90_000, stopMs: 20 }, { clock: timers.clock, timers });
  timers.pass(30_000);
  expect(attempt.nextMessage()).toMatchObject({ $case: 'events', value: { events: [{ payload: { $case: 'log', value: { level: 'warn', dataJson: '{"code":"stuck","phase":null}' } } }] } });
  attempt.onEventAck({ attempt: ref, seq: 1, stale: false });
  timers.pass(59_999);
  expect(asked.at(-1)).toEqual(['begin', 'att-1']);
  timers.pass(1);
  expect(asked.at(-1)).toEqual(['end', 'att-1', { checkpoint: false, killAfterMs: 20 }]);
  expect(attempt.nextMessage()).toBeNull();
  attempt.onUnanswered();
  expect(await ending()).toMatchObject({ $case: 'failed', value: { failureClass: 'infrastructure', code: 'stuck' } });
});

test('who was asked to stop and is not waited for has stopped', async () => {
  attempt.stop('preempted', 50);
  attempt.onUnanswered();
  expect(await ending()).toEqual({ $case: 'stopped', value: { reason: 'preempted' } });
});
