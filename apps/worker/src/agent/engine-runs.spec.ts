import { silentLogger } from '@tunefleet/foundation';
import type { ToEngine } from '../engine-protocol';
import { ManualTimers } from '../testing/manual-timers';
import { EngineRuns } from './engine-runs';

const exit = { code: null, signal: 'SIGKILL', outOfMemory: false, logTail: [], crashes: 1 } as const;

let timers: ManualTimers;
let sent: ToEngine[];
let kills: number;
let isUp: boolean;
let unanswered: string[];
let runs: EngineRuns;

const begin = (runId: string): boolean => runs.begin({ type: 'run', runId, kind: 'fine-tune', schemaVersion: 1, spec: {}, inputFiles: {}, resumeDir: null, outputDir: '' });

beforeEach(() => {
  [timers, sent, kills, isUp, unanswered] = [new ManualTimers(), [], 0, true, []];
  runs = new EngineRuns({
    engine: { send: (message) => isUp && sent.push(message) > 0, kill: () => void kills++, recentLines: [] },
    settings: { sharedStopMs: 20_000 },
    clock: timers.clock,
    timers,
    logger: silentLogger,
    onKill: () => undefined,
    onUnanswered: (runId) => unanswered.push(runId),
  });
});

test('an engine that does not answer a stop is killed after its time: at once where the run is alone, later where there are others', () => {
  begin('a');
  runs.end('a', { checkpoint: false, killAfterMs: 1_500 });
  timers.pass(1_500);
  expect(kills).toBe(1);
  expect(runs.exited(exit)).toEqual({ ...exit, runIds: ['a'], killedFor: 'a' });

  begin('b');
  begin('c');
  runs.end('b', { checkpoint: false, killAfterMs: 1_500 });
  timers.pass(19_999);
  expect(kills).toBe(1);
  timers.pass(1);
  expect(kills).toBe(2);
  expect(runs.exited(exit)).toMatchObject({ runIds: ['b', 'c'], killedFor: 'b' });
  expect(unanswered).toEqual(['a', 'b']);
});

test('one that hangs while others speak is dropped; the engine is killed for it when they have ended', () => {
  for (const runId of ['a', 'b', 'c']) begin(runId);
  runs.end('a', { checkpoint: false, killAfterMs: 1_500 });
  timers.pass(15_000);
  runs.heard('b');
  timers.pass(5_000);
  expect([kills, unanswered, runs.ids]).toEqual([0, ['a'], ['a', 'b', 'c']]);
  runs.answered('b');
  expect(kills).toBe(0);
  runs.answered('c');
  expect(kills).toBe(1);
  expect(runs.exited(exit)).toMatchObject({ runIds: ['a'], killedFor: 'a' });
});

test('nothing is killed if the dropped one answers after all', () => {
  for (const runId of ['a', 'b']) begin(runId);
  runs.end('a', { checkpoint: false, killAfterMs: 1_500 });
  timers.pass(15_000);
  runs.heard('b');
  timers.pass(5_000);
  runs.answered('a');
  runs.answered('b');
  expect([kills, runs.ids]).toEqual([0, []]);
});

test('where the others spoke long ago, or have not begun to, the engine hangs', () => {
  for (const runId of ['a', 'b', 'c']) begin(runId);
  timers.pass(1_000);
  runs.end('a', { checkpoint: false, killAfterMs: 1_500 });
  runs.heard('a');
  timers.pass(9_999);
  runs.heard('b');
  timers.pass(10_001);
  expect([kills, unanswered]).toEqual([1, ['a']]);
});

test('the last that hangs is killed with those dropped before', () => {
  for (const runId of ['a', 'b']) begin(runId);
  runs.end('a', { checkpoint: false, killAfterMs: 1_500 });
  timers.pass(15_000);
  runs.heard('b');
  timers.pass(5_000);
  runs.end('b', { checkpoint: false, killAfterMs: 1_500 });
  timers.pass(1_500);
  expect([kills, unanswered]).toEqual([1, ['a', 'b']]);
});

test('it is killed no later than that when the others end meanwhile', () => {
  begin('a');
  begin('b');
  runs.end('a', { checkpoint: false, killAfterMs: 1_500 });
  timers.pass(2_000);
  runs.answered('b');
  timers.pass(30_000);
  expect(kills).toBe(1);
});

test('a grace that is longer than the patience for others counts', () => {
  begin('a');
  begin('b');
  runs.end('a', { checkpoint: true, killAfterMs: 60_000 });
  timers.pass(59_999);
  expect(kills).toBe(0);
  timers.pass(1);
  expect(kills).toBe(1);
});

test('an answer, a newer order and the end of the engine take the kill back', () => {
  for (const runId of ['a', 'b', 'c']) begin(runId);
  runs.end('a', { checkpoint: true, killAfterMs: 60_000 });
  runs.end('a', { checkpoint: false, killAfterMs: 90_000 });
  runs.end('b', { checkpoint: false, killAfterMs: 1_500 });
  runs.answered('b');
  expect(sent.filter(({ type }) => type === 'stop')).toEqual([['a', true], ['a', false], ['b', false]].map(([runId, checkpoint]) => ({ type: 'stop', runId, checkpoint })));
  timers.pass(80_000);
  expect([kills, runs.ids]).toEqual([0, ['a', 'c']]);
  expect(runs.exited(exit)).toMatchObject({ runIds: ['a', 'c'], killedFor: null });
  expect([timers.waiting, runs.ids]).toEqual([0, []]);
  // It is over: there is nobody to ask.
  runs.end('a', { checkpoint: false, killAfterMs: 1 });
  expect(timers.waiting).toBe(0);
});

test('without an engine nothing begins', () => {
  isUp = false;
  expect([begin('a'), runs.ids]).toEqual([false, []]);
});
