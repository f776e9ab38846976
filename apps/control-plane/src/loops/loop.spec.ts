import { silentLogger } from '@tunefleet/foundation';
import { until } from '@tunefleet/testing';
import { Loop } from './loop';

/** A body whose runs are ended by hand. */
function gatedBody() {
  const waiting: { end: () => void; fail: (error: Error) => void }[] = [];
  const arrivals: (() => void)[] = [];
  let entered = 0;
  let active = 0;
  let mostActive = 0;
  const body = async (): Promise<void> => {
    entered++;
    mostActive = Math.max(mostActive, ++active);
    try {
      await new Promise<void>((resolve, reject) => {
        waiting.push({ end: resolve, fail: reject });
        arrivals.splice(0).forEach((arrived) => arrived());
      });
    } finally {
      active--;
    }
  };
  const next = async () => {
    while (waiting.length === 0) await new Promise<void>((resolve) => arrivals.push(resolve));
    const run = waiting.shift();
    if (run === undefined) throw new Error('no run');
    return run;
  };
  return { body, next, entered: () => entered, mostActive: () => mostActive };
}

const FAR_MS = 3_600_000;
const REST_MS = 7;

test('any number of wakes during a run cause exactly one more, and runs never overlap', async () => {
  const gate = gatedBody();
  const loop = new Loop(gate.body, { name: 'test', intervalMs: FAR_MS, logger: silentLogger });
  loop.start();
  const first = await gate.next();
  for (let i = 0; i < 100; i++) loop.wake();
  first.end();
  (await gate.next()).end();
  await loop.stop();
  expect(gate.entered()).toBe(2);
  expect(gate.mostActive()).toBe(1);
  expect(loop.status()).toMatchObject({ runs: 2, errors: 0 });
});

test('wakes while it rests wait until it has rested, and cause one run', async () => {
  const rests: (() => void)[] = [];
  const timers = {
    every: () => ({ cancel: () => undefined }),
    after: (ms: number, callback: () => void) => {
      if (ms === REST_MS) rests.push(callback);
      return { cancel: () => undefined };
    },
  };
  const gate = gatedBody();
  const loop = new Loop(gate.body, { name: 'test', intervalMs: FAR_MS, restMs: REST_MS, logger: silentLogger, timers });
  loop.start();
  (await gate.next()).end();
  await until('the rest', () => rests.length === 1);
  for (let i = 0; i < 10; i++) loop.wake();
  expect(gate.entered()).toBe(1);
  rests[0]?.();
  const second = await gate.next();
  const stopped = loop.stop();
  second.end();
  await stopped;
  expect(gate.entered()).toBe(2);
});

test('runs on its timer without being woken', async () => {
  const gate = gatedBody();
  const loop = new Loop(gate.body, { name: 'test', intervalMs: 1, logger: silentLogger });
  loop.start();
  for (let i = 0; i < 3; i++) (await gate.next()).end();
  const last = await gate.next();
  const stopped = loop.stop();
  last.end();
  await stopped;
  expect(loop.status().runs).toBe(4);
});

test('an error is counted and does not end the loop; success clears the run of errors', async () => {
  const gate = gatedBody();
  const loop = new Loop(gate.body, { name: 'test', intervalMs: FAR_MS, logger: silentLogger, backoff: { firstMs: 1, factor: 1, maxMs: 1 } });
  loop.start();
  (await gate.next()).fail(new Error('database is away'));
  (await gate.next()).fail(new Error('database is away'));
  const good = await gate.next();
  expect(loop.status()).toMatchObject({ errors: 2, consecutiveErrors: 2 });
  good.end();
  await loop.stop();
  expect(loop.status()).toMatchObject({ runs: 3, errors: 2, consecutiveErrors: 0 });
});

test('stop waits for the run under way and nothing runs after it', async () => {
  const gate = gatedBody();
  const loop = new Loop(gate.body, { name: 'test', intervalMs: 1, logger: silentLogger });
  loop.start();
  const run = await gate.next();
  let hasStopped = false;
  const stopped = loop.stop().then(() => (hasStopped = true));
  await Promise.resolve();
  expect(hasStopped).toBe(false);
  run.end();
  await stopped;
  loop.wake();
  expect(gate.entered()).toBe(1);
});
