import type { JobQueue, QueueMessage } from '../job-queue';

export interface JobQueueUnderTest {
  /** Another client of the same messages: as another process would be. Closed by the suite. */
  open(): Promise<JobQueue>;
  /** Breaks every connection to where the messages are kept. */
  cut(): void;
  /** The same, and lets none be made any more. */
  vanish(): Promise<void>;
}

/**
 * What every JobQueue must do. Call at the top level of a spec file.
 * @param setUp gives a queue without messages in it, whose messages are tried three times, with delays of some milliseconds
 */
export function jobQueueConformance(name: string, setUp: () => Promise<JobQueueUnderTest>): void {
  describe(`JobQueue: ${name}`, () => {
    let subject: JobQueueUnderTest;
    let opened: JobQueue[];
    const open = async (): Promise<JobQueue> => {
      const queue = await subject.open();
      opened.push(queue);
      return queue;
    };
    beforeEach(async () => {
      opened = [];
      subject = await setUp();
    });
    afterEach(async () => {
      await Promise.all(opened.map((queue) => queue.close()));
      await subject.vanish();
    });

    test('hands each message over whole, and forgets it once it was handled', async () => {
      const queue = await open();
      const inbox = new Inbox();
      const messages = ['m-1', 'M_2', 'again-ftjob-01-7'].map((id): QueueMessage => ({ id, queue: 'tune', payload: { jobId: id, deep: { list: [1, null, 'ä\n"'] } } }));
      for (const message of messages) await queue.add(message);
      expect(await queue.counts('tune')).toEqual({ waiting: 3, active: 0, failed: 0 });
      await queue.consume('tune', inbox.take, { concurrency: 1 });
      expect(await inbox.received(3)).toEqual(messages);
      await settled(queue);
      // An idle consumer is woken.
      await queue.add({ id: 'm-1', queue: 'tune', payload: { second: true } });
      expect((await inbox.received(4)).at(-1)).toEqual({ id: 'm-1', queue: 'tune', payload: { second: true } });
    });

    test('ignores an id it remembers, whoever adds it and however often at once', async () => {
      const [queue, other] = [await open(), await open()];
      await Promise.all(Array.from({ length: 10 }, (_, index) => (index % 2 === 0 ? queue : other).add({ id: 'same', queue: 'tune', payload: {} })));
      await queue.add({ id: 'last', queue: 'tune', payload: {} });
      const inbox = new Inbox();
      await other.consume('tune', inbox.take, { concurrency: 1 });
      await inbox.received(2);
      await settled(queue);
      expect(inbox.ids()).toEqual(['same', 'last']);
    });

    test('keeps the queues apart', async () => {
      const queue = await open();
      const [tune, evals] = [new Inbox(), new Inbox()];
      await queue.consume('tune', tune.take, { concurrency: 4 });
      await queue.consume('eval', evals.take, { concurrency: 4 });
      await queue.add({ id: 'same', queue: 'eval', payload: {} });
      await queue.add({ id: 'same', queue: 'tune', payload: {} });
      await Promise.all([tune.received(1), evals.received(1)]);
      expect([tune.messages[0]?.queue, evals.messages[0]?.queue]).toEqual(['tune', 'eval']);
    });

    test('tries a message again when its handler throws, and keeps what failed every time', async () => {
      const queue = await open();
      const tries: string[] = [];
      const inbox = new Inbox();
      const handler = async (message: QueueMessage): Promise<void> => {
        tries.push(message.id);
        if (message.id === 'never' || tries.filter((id) => id === message.id).length < 3) throw new Error('not yet');
        await inbox.take(message);
      };
      await queue.add({ id: 'third-time', queue: 'tune', payload: {} });
      await queue.add({ id: 'never', queue: 'tune', payload: {} });
      await queue.consume('tune', handler, { concurrency: 2 });
      await inbox.received(1);
      await settled(queue);
      expect(tries.sort()).toEqual(['never', 'never', 'never', 'third-time', 'third-time', 'third-time']);
      expect(await queue.counts('tune')).toEqual({ waiting: 0, active: 0, failed: 1 });
      expect(await queue.counts('eval')).toEqual({ waiting: 0, active: 0, failed: 0 });
    });

    test('two consumers share the messages; each handles no more at once than it said', async () => {
      const [one, two] = [await open(), await open()];
      const inbox = new Inbox();
      let mostActive = 0;
      const consumer = () => {
        let active = 0;
        return async (message: QueueMessage): Promise<void> => {
          mostActive = Math.max(mostActive, ++active);
          await new Promise((resolve) => setImmediate(resolve));
          await inbox.take(message);
          active--;
        };
      };
      const ids = Array.from({ length: 60 }, (_, index) => `m-${index}`);
      await Promise.all(ids.map((id) => one.add({ id, queue: 'tune', payload: {} })));
      await Promise.all([one.consume('tune', consumer(), { concurrency: 3 }), two.consume('tune', consumer(), { concurrency: 3 })]);
      await inbox.received(60);
      await settled(one);
      expect(inbox.ids().sort()).toEqual(ids.sort());
      expect(mostActive).toBeLessThanOrEqual(3);
      expect((await one.counts('tune')).failed).toBe(0);
    });

    test('closing lets a running handler end, and another process goes on with the rest', async () => {
      const first = await open();
      const inbox = new Inbox();
      const gate = new Gate();
      await first.add({ id: 'running', queue: 'tune', payload: {} });
      await first.add({ id: 'waiting', queue: 'tune', payload: {} });
      const slow = async (message: QueueMessage): Promise<void> => {
        gate.reached();
        await gate.opened;
        await inbox.take(message);
      };
      await first.consume('tune', slow, { concurrency: 1 });
      await gate.arrival;
      const closing = first.close();
      expect(inbox.ids()).toEqual([]);
      gate.open();
      await closing;
      expect(inbox.ids()).toEqual(['running']);
      const second = await open();
      await second.consume('tune', inbox.take, { concurrency: 1 });
      await inbox.received(2);
      await settled(second);
      expect(inbox.ids()).toEqual(['running', 'waiting']);
    });

    test('goes on by itself when its connections break', async () => {
      const [producer, consumer] = [await open(), await open()];
      const inbox = new Inbox();
      await consumer.consume('tune', inbox.take, { concurrency: 1 });
      await producer.add({ id: 'before', queue: 'tune', payload: {} });
      await inbox.received(1);
      await settled(producer);
      subject.cut();
      // What is refused meanwhile stays in the outbox and is added again.
      await untilNoThrow(() => producer.add({ id: 'after', queue: 'tune', payload: {} }));
      await inbox.received(2);
      expect(inbox.ids()).toEqual(['before', 'after']);
      await untilNoThrow(() => consumer.ping());
    });

    test('says so when its messages cannot be reached, and can be closed all the same', async () => {
      const queue = await open();
      await queue.consume('tune', async () => undefined, { concurrency: 1 });
      await subject.vanish();
      const unavailable = { code: 'unavailable', retry: 'with_backoff' };
      await expect(queue.add({ id: 'm', queue: 'tune', payload: {} })).rejects.toMatchObject(unavailable);
      await expect(queue.counts('eval')).rejects.toMatchObject(unavailable);
      await expect(queue.ping()).rejects.toMatchObject(unavailable);
      await queue.close();
    });

    test('refuses ids that a store could take for something else', async () => {
      const queue = await open();
      for (const id of ['', 'a:b', 'a b', '12345', 'ä', '../x', 'x'.repeat(201)]) {
        await expect(queue.add({ id, queue: 'tune', payload: {} })).rejects.toMatchObject({ code: 'invalid_input', param: 'id' });
      }
    });

    test('one consumer per queue and process; nothing after closing, which can be said twice', async () => {
      const queue = await open();
      await queue.ping();
      await queue.consume('tune', async () => undefined, { concurrency: 1 });
      await expect(queue.consume('tune', async () => undefined, { concurrency: 1 })).rejects.toMatchObject({ code: 'invariant' });
      await Promise.all([queue.close(), queue.close()]);
      await expect(queue.add({ id: 'late', queue: 'tune', payload: {} })).rejects.toMatchObject({ code: 'unavailable' });
      await expect(queue.ping()).rejects.toMatchObject({ code: 'unavailable' });
      await expect(queue.consume('eval', async () => undefined, { concurrency: 1 })).rejects.toMatchObject({ code: 'unavailable' });
    });
  });
}

/** Messages in the order of their arrival. */
class Inbox {
  readonly messages: QueueMessage[] = [];
  private waiting: (() => void)[] = [];

  readonly take = async (message: QueueMessage): Promise<void> => {
    this.messages.push(message);
    this.waiting.splice(0).forEach((wake) => wake());
  };

  async received(count: number): Promise<readonly QueueMessage[]> {
    while (this.messages.length < count) await new Promise<void>((resolve) => this.waiting.push(resolve));
    return this.messages;
  }

  ids(): string[] {
    return this.messages.map((message) => message.id);
  }
}

class Gate {
  reached!: () => void;
  open!: () => void;
  readonly arrival = new Promise<void>((resolve) => (this.reached = resolve));
  readonly opened = new Promise<void>((resolve) => (this.open = resolve));
}

/** Nothing waits and nothing runs. */
async function settled(queue: JobQueue): Promise<void> {
  for (;;) {
    const { waiting, active } = await queue.counts('tune');
    if (waiting === 0 && active === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function untilNoThrow(work: () => Promise<unknown>): Promise<void> {
  for (;;) {
    try {
      await work();
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
