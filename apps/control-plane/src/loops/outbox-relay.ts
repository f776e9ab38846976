import { jobKinds, type QueueName } from '@tunefleet/contracts';
import { TunefleetError } from '@tunefleet/foundation';
import type { JobQueue, Outbox, OutboxRecord } from '@tunefleet/ports';

const BATCH = 100;
const queueNames: ReadonlySet<string> = new Set(Object.values(jobKinds).map((kind) => kind.queue));

/** Hands owed messages to the queue until none is left. Ids are derived from what they announce, so handing one over twice does nothing. */
export async function relayOutbox(outbox: Pick<Outbox, 'relay'>, queue: Pick<JobQueue, 'add'>, onRelayed: (messageId: string) => void = () => undefined): Promise<number> {
  let total = 0;
  for (;;) {
    const published = await outbox.relay(BATCH, async (message) => {
      await queue.add({ id: message.messageId, queue: queueNameOf(message), payload: message.payload });
      onRelayed(message.messageId);
    });
    total += published;
    if (published < BATCH) return total;
  }
}

function queueNameOf(message: OutboxRecord): QueueName {
  if (!queueNames.has(message.queue)) throw new TunefleetError('invariant', `outbox row ${message.id} names an unknown queue: ${message.queue}`);
  return message.queue as QueueName;
}
