import { silenceRule } from '@tunefleet/domain-jobs';
import { ManualClock, type Timers } from '@tunefleet/foundation';
import { EngineWatch } from './engine-watch';

const clock = new ManualClock(0);
let due: { readonly at: number; run: () => void }[];
let said: string[];
let watch: EngineWatch;

const timers: Timers = {
  after: (ms, run) => {
    const timer = { at: clock.monotonic() + ms, run };
    due.push(timer);
    return { cancel: () => (due = due.filter((each) => each !== timer)) };
  },
  every: () => {
    throw new Error('not used');
  },
};

function pass(ms: number): void {
  for (const end = clock.monotonic() + ms; ; ) {
    const next = due.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
    clock.advance((next?.at ?? end) - clock.monotonic());
    if (next === undefined) return;
    due = due.filter((each) => each !== next);
    next.run();
  }
}

beforeEach(() => {
  due = [];
  said = [];
  watch = new EngineWatch({
    rule: silenceRule(90_000),
    clock,
    timers,
    onStuck: (message) => said.push(message),
    onHeardAgain: (silentMs) => said.push(`again after ${silentMs}`),
    onGivenUp: (message) => said.push(`given up: ${message}`),
  });
  watch.start();
});

test('an engine that speaks now and then is left alone for ever, with one timer', () => {
  for (let i = 0; i < 100; i++) {
    pass(29_000);
    watch.heard('load 10 %');
    expect(due).toHaveLength(1);
  }
  expect(said).toEqual([]);
});

test('silence is noted once, then given up, with the phase it told last', () => {
  watch.heard('tokenise 500 rows');
  watch.heard();
  pass(30_000);
  expect(said).toEqual(['nothing heard from the engine for 30 s while it tokenised the data (500 rows)']);
  pass(59_999);
  expect(said).toHaveLength(1);
  pass(1_000_000);
  expect(said.slice(1)).toEqual(['given up: nothing heard from the engine for 90 s while it tokenised the data (500 rows)']);
  expect(due).toEqual([]);
});

test('one that goes on gets its whole time anew', () => {
  pass(80_000);
  watch.heard('train');
  pass(29_000);
  expect(said.slice(1)).toEqual(['again after 80000']);
  pass(1_000);
  expect(said).toHaveLength(3);
});

test('after its end nothing is said', () => {
  watch.stop();
  pass(1_000_000);
  watch.heard();
  expect([said, due]).toEqual([[], []]);
});
