import { silentLogger, type Timers } from '@tunefleet/foundation';
import type { ToEngine } from '../engine-protocol';
import { EngineRuns } from './engine-runs';

const exit = { code: null, signal: 'SIGKILL', outOfMemory: false, logTail: [], crashes: 1 } as const;

let nowMs: number;
let due: { readonly at: number; readonly run: () => void }[];
let sent: ToEngine[];
let kills: number;
let isUp: boolean;
let runs: EngineRuns;

const timers: Timers = {
  after: (ms, run) => {
    const timer = { at: nowMs + ms, run };
    due.push(timer);
    return { cancel: () => void (due = due.filter((each) => each !== timer)) };
  },
  every: () => {
    throw new Error('not used');
  },
};

function passTo(ms: number): void {
  for (;;) {
    const [next] = due.filter(({ at }) => at <= ms).sort((a, b) => a.at - b.at);
    nowMs = next?.at ?? ms;
    if (next === undefined) return;
    due = due.filter((each) => each !== next);
    next.run();
  }
}

const begin = (runId: string): boolean => runs.begin({ type: 'run', runId, kind: 'fine-tune', schemaVersion: 1, spec: {}, inputFiles: {}, resumeDir: null, outputDir: '' });

beforeEach(() => {
  [nowMs, due, sent, kills, isUp] = [0, [], [], 0, true];
  runs = new EngineRuns({
    engine: { send: (message) => isUp && sent.push(message) > 0, kill: () => void kills++, recentLines: [] },
    settings: { sharedStopMs: 20_000 },
    timers,
    logger: silentLogger,
  });
});

test('an engine that does not answer a stop is killed after its time: at once where the run is alone, later where there are others', () => {
  begin('a');
  runs.end('a', { checkpoint: false, killAfterMs: 1_500 });
  passTo(1_500);
  expect(kills).toBe(1);
  expect(runs.exited(exit)).toEqual({ ...exit, runIds: ['a'], killedFor: 'a' });

  nowMs = 0;
  begin('b');
  begin('c');
  runs.end('b', { checkpoint: false, killAfterMs: 1_500 });
  passTo(19_999);
  expect(kills).toBe(1);
  passTo(20_000);
  expect(kills).toBe(2);
  expect(runs.exited(exit)).toMatchObject({ runIds: ['b', 'c'], killedFor: 'b' });
});

test('it is killed no later than that when the others end meanwhile', () => {
  begin('a');
  begin('b');
  runs.end('a', { checkpoint: false, killAfterMs: 1_500 });
  passTo(2_000);
  runs.answered('b');
  passTo(30_000);
  expect(kills).toBe(1);
});

test('a grace that is longer than the patience for others counts', () => {
  begin('a');
  begin('b');
  runs.end('a', { checkpoint: true, killAfterMs: 60_000 });
  passTo(59_999);
  expect(kills).toBe(0);
  passTo(60_000);
  expect(kills).toBe(1);
});

test('an answer, a newer order and the end of the engine take the kill back', () => {
  for (const runId of ['a', 'b', 'c']) begin(runId);
  runs.end('a', { checkpoint: true, killAfterMs: 60_000 });
  runs.end('a', { checkpoint: false, killAfterMs: 90_000 });
  runs.end('b', { checkpoint: false, killAfterMs: 1_500 });
  runs.answered('b');
  expect(sent.filter(({ type }) => type === 'stop')).toEqual([['a', true], ['a', false], ['b', false]].map(([runId, checkpoint]) => ({ type: 'stop', runId, checkpoint })));
  passTo(80_000);
  expect([kills, runs.ids]).toEqual([0, ['a', 'c']]);
  expect(runs.exited(exit)).toMatchObject({ runIds: ['a', 'c'], killedFor: null });
  expect([due, runs.ids]).toEqual([[], []]);
  // It is over: there is nobody to ask.
  runs.end('a', { checkpoint: false, killAfterMs: 1 });
  expect(due).toEqual([]);
});

test('without an engine nothing begins', () => {
  isUp = false;
  expect([begin('a'), runs.ids]).toEqual([false, []]);
});
