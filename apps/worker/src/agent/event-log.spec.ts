import fc from 'fast-check';
import { EventLog, type EventPayload } from './event-log';

const metric = (step: number): EventPayload => ({ $case: 'metrics', value: { step, values: { loss: step } } });
const log = (message: string): EventPayload => ({ $case: 'log', value: { level: 'info', message, dataJson: '' } });
const progress = (step: number): EventPayload => ({ $case: 'progress', value: { step, totalSteps: 9, phase: 'training', tokensPerSecond: 1, etaSeconds: 1, microBatchSize: 0 } });
const limits = { maxEvents: 10, batchEvents: 3, batchBytes: 1_000_000 };

const seqs = (batch: readonly { seq: number }[] | null): number[] | null => batch?.map((event) => event.seq) ?? null;

test('one batch is under way at a time; the next follows its acknowledgement', () => {
  const events = new EventLog(limits);
  for (let step = 1; step <= 5; step++) events.add(metric(step), 0);
  expect(seqs(events.nextBatch())).toEqual([1, 2, 3]);
  expect(events.nextBatch()).toBeNull();
  events.acknowledge(3);
  expect(seqs(events.nextBatch())).toEqual([4, 5]);
  expect(events.isDrained).toBe(false);
  events.acknowledge(5);
  expect(events.isDrained).toBe(true);
  expect(events.nextBatch()).toBeNull();
});

test('after a reconnect the same events go out under the same numbers', () => {
  const events = new EventLog(limits);
  for (let step = 1; step <= 5; step++) events.add(metric(step), step);
  const before = events.nextBatch();
  events.rewind();
  expect(events.nextBatch()).toEqual(before);
});

test('an acknowledgement of a part leaves the rest to be sent', () => {
  const events = new EventLog(limits);
  for (let step = 1; step <= 3; step++) events.add(metric(step), 0);
  events.nextBatch();
  events.acknowledge(2);
  expect(seqs(events.nextBatch())).toEqual([3]);
});

test('a newer progress report replaces an unsent older one without a gap in the numbers', () => {
  const events = new EventLog(limits);
  events.add(progress(1), 0);
  events.add(metric(1), 0);
  events.add(progress(2), 0);
  expect(events.nextBatch()).toMatchObject([
    { seq: 1, payload: { $case: 'metrics' } },
    { seq: 2, payload: { $case: 'progress', value: { step: 2 } } },
  ]);
});

test('when full, log lines are dropped and counted, metrics are not', () => {
  const events = new EventLog(limits);
  for (let i = 0; i < 12; i++) events.add(log(`line ${i}`), 0);
  events.add(metric(1), 0);
  expect(() => events.add(metric(2), 0)).toThrow(expect.objectContaining({ code: 'capacity' }));
  for (let sent = 0; sent < 4; sent++) events.acknowledge(events.nextBatch()?.at(-1)?.seq ?? 0);
  events.add(log('after'), 0);
  expect(events.nextBatch()).toMatchObject([{ payload: { value: { message: expect.stringContaining('3 log lines were dropped') as string } } }, { payload: { value: { message: 'after' } } }]);
});

test('a batch stays below its size, but always carries at least one event', () => {
  const events = new EventLog({ ...limits, batchBytes: 1_000 });
  events.add(log('x'.repeat(2_000)), 0);
  events.add(log('short'), 0);
  expect(events.nextBatch()).toHaveLength(1);
});

test('property: whatever is cut, resent and acknowledged, a receiver that skips known numbers gets every metric once, in order, without gaps', () => {
  const action = fc.constantFrom('add', 'send', 'ack', 'lose', 'progress');
  fc.assert(
    fc.property(fc.array(action, { maxLength: 200 }), (actions) => {
      const events = new EventLog({ maxEvents: 1_000, batchEvents: 3, batchBytes: 1_000_000 });
      const received: number[] = [];
      let lastSeq = 0;
      let added = 0;
      let isUnderWay = false;
      const send = (): void => {
        const batch = events.nextBatch();
        if (batch === null) return;
        isUnderWay = true;
        for (const event of batch) {
          if (event.seq <= lastSeq) continue;
          expect(event.seq).toBe(lastSeq + 1);
          lastSeq = event.seq;
          if (event.payload?.$case === 'metrics') received.push(event.payload.value.step);
        }
      };
      const acknowledge = (): void => {
        if (isUnderWay) events.acknowledge(lastSeq);
        isUnderWay = false;
      };
      for (const next of actions) {
        if (next === 'add') events.add(metric(++added), 0);
        else if (next === 'progress') events.add(progress(added), 0);
        else if (next === 'send') send();
        else if (next === 'ack') acknowledge();
        else events.rewind();
      }
      events.rewind();
      for (let i = 0; i <= 200 && !events.isDrained; i++) {
        send();
        acknowledge();
      }
      expect(events.isDrained).toBe(true);
      expect(received).toEqual(Array.from({ length: added }, (_, i) => i + 1));
    }),
  );
});
