import { silenceRule } from '@tunefleet/domain-jobs';
import { ManualTimers } from '../testing/manual-timers';
import { EngineWatch } from './engine-watch';

let timers: ManualTimers;
let said: string[];
let watch: EngineWatch;

beforeEach(() => {
  timers = new ManualTimers();
  said = [];
  watch = new EngineWatch({
    rule: silenceRule(90_000),
    clock: timers.clock,
    timers,
    onStuck: (message) => said.push(message),
    onHeardAgain: (silentMs) => said.push(`again after ${silentMs}`),
    onGivenUp: (message) => said.push(`given up: ${message}`),
  });
  watch.start();
});

test('an engine that speaks now and then is left alone for ever, with one timer', () => {
  for (let i = 0; i < 100; i++) {
    timers.pass(29_000);
    watch.heard('load 10 %');
    expect(timers.waiting).toBe(1);
  }
  expect(said).toEqual([]);
});

test('silence is noted once, then given up, with the phase it told last', () => {
  watch.heard('tokenise 500 rows');
  watch.heard();
  timers.pass(30_000);
  expect(said).toEqual(['nothing heard from the engine for 30 s while it tokenised the data (500 rows)']);
  timers.pass(59_999);
  expect(said).toHaveLength(1);
  timers.pass(1_000_000);
  expect(said.slice(1)).toEqual(['given up: nothing heard from the engine for 90 s while it tokenised the data (500 rows)']);
  expect(timers.waiting).toBe(0);
});

test('one that goes on gets its whole time anew', () => {
  timers.pass(80_000);
  watch.heard('train');
  timers.pass(29_000);
  expect(said.slice(1)).toEqual(['again after 80000']);
  timers.pass(1_000);
  expect(said).toHaveLength(3);
});

test('after its end nothing is said', () => {
  watch.stop();
  timers.pass(1_000_000);
  watch.heard();
  expect([said, timers.waiting]).toEqual([[], 0]);
});
