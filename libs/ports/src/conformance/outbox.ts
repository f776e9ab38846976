import type { Outbox } from '../outbox';
import type { OutboxRecord } from '../records';
import { StoreSteps, type StoreUnderTest } from './store-under-test';

/** What every Outbox must do. Call at the top level of a spec file. @param open an empty store, closed by the suite */
export function outboxConformance(name: string, open: () => Promise<StoreUnderTest>): void {
  describe(`Outbox: ${name}`, () => {
    let steps: StoreSteps;
    let outbox: Outbox;
    beforeEach(async () => {
      steps = await StoreSteps.of(await open());
      outbox = steps.store.outbox;
    });
    afterEach(() => steps.store.close());

    const create = async (count: number): Promise<string[]> => {
      const ids: string[] = [];
      for (let n = 0; n < count; n++) ids.push(await steps.create());
      return ids;
    };
    const into = (published: OutboxRecord[]) => async (message: OutboxRecord) => void published.push(message);

    test('owes one message per job, oldest first, until it has been published', async () => {
      const [first, second, third] = await create(3);
      const published: OutboxRecord[] = [];
      expect(await outbox.lagMs()).toBeGreaterThan(0);
      expect(await outbox.relay(2, into(published))).toBe(2);
      expect(await outbox.relay(2, into(published))).toBe(1);
      expect(await outbox.relay(2, into(published))).toBe(0);
      expect(published.map(({ queue, messageId, payload }) => ({ queue, messageId, payload }))).toEqual(
        [first, second, third].map((jobId) => ({ queue: 'tune', messageId: `tune-${jobId}`, payload: { jobId } })),
      );
      expect(await outbox.lagMs()).toBe(0);
    });

    test('what could not be published stays, and does not hold up the rest', async () => {
      const [first, second, third] = await create(3);
      const published: OutboxRecord[] = [];
      const refusing = async (message: OutboxRecord): Promise<void> => {
        if (message.payload['jobId'] === second) throw new Error('the queue is away');
        published.push(message);
      };
      expect(await outbox.relay(10, refusing)).toBe(2);
      expect(published.map(({ payload }) => payload['jobId'])).toEqual([first, third]);
      expect(await outbox.relay(10, into(published))).toBe(1);
      expect(published.at(-1)?.payload).toEqual({ jobId: second });
    });

    test('what intake has done before its message was sent is not owed', async () => {
      const [admitted, refused, open] = await create(3);
      const child = await steps.create({ afterJobIds: [open as string] });
      expect(await steps.admit(admitted as string)).toBe(true);
      expect(await steps.admit(child)).toBe(true);
      expect(await steps.store.records.refuseJob(refused as string, { class: 'user', code: 'bad', message: 'bad', param: null, logTail: [] })).toBe(true);
      const published: OutboxRecord[] = [];
      expect(await outbox.relay(10, into(published))).toBe(1);
      expect(published.map(({ payload }) => payload)).toEqual([{ jobId: open }]);
    });

    test('intake may be done while its message is sent', async () => {
      const [id] = await create(1);
      const admitting = async (): Promise<void> => expect(await steps.admit(id as string)).toBe(true);
      expect(await outbox.relay(10, admitting)).toBe(1);
      expect(await outbox.lagMs()).toBe(0);
    });

    test('relays that run at once skip what another holds', async () => {
      await create(4);
      const [mine, theirs]: [OutboxRecord[], OutboxRecord[]] = [[], []];
      const holding = async (message: OutboxRecord): Promise<void> => {
        mine.push(message);
        // While this relay holds two rows, another takes the others and waits for nobody.
        if (mine.length === 1) expect(await outbox.relay(10, into(theirs))).toBe(2);
      };
      expect(await outbox.relay(2, holding)).toBe(2);
      expect(new Set([...mine, ...theirs].map((message) => message.messageId)).size).toBe(4);
      expect(await outbox.relay(10, into(mine))).toBe(0);
    });
  });
}
