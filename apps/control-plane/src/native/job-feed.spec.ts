import type { JobEventRecord, JobRecord, MetricPointRecord } from '@tunefleet/ports';
import { JobFeed, type FeedPosition, type FeedStore } from './job-feed';
import { metricPage } from './metric-page';

const START: FeedPosition = { eventId: null, step: -1 };

class Job {
  status: JobRecord['status'] = 'running';
  readonly events: JobEventRecord[] = [];
  readonly points: MetricPointRecord[] = [];

  readonly store: FeedStore = {
    getJob: () => Promise.resolve({ id: 'j', kind: 'fine-tune', status: this.status, createdAt: new Date(0), queuedAt: null, startedAt: null, finishedAt: null, estimatedFinish: null, error: null, metadata: null, step: this.points.length, afterJobIds: [], workerSelector: {}, source: null, stopReason: null } as unknown as JobRecord),
    listEvents: (_job, { after, limit }) => {
      const newest = [...this.events].reverse().filter((event) => after === undefined || event.id < after);
      return Promise.resolve({ items: newest.slice(0, limit), hasMore: newest.length > limit });
    },
    listMetrics: (_job, { name, sinceStep, limit }) =>
      Promise.resolve(
        [...this.points]
          .filter((point) => (sinceStep === undefined || point.step > sinceStep) && (name === undefined || point.name === name))
          .sort((a, b) => a.step - b.step || (a.name < b.name ? -1 : 1))
          .slice(0, limit),
      ),
  };

  say(count = 1): void {
    for (let i = 0; i < count; i++) {
      const id = `ftevent-${String(this.events.length + 1).padStart(12, '0')}`;
      this.events.push({ id, jobId: 'j', level: 'info', type: 'message', message: id, data: null, createdAt: new Date(0) });
    }
  }

  feed(from = START): JobFeed {
    return new JobFeed(this.store, 't', 'j', from);
  }
}

async function told(feed: JobFeed): Promise<{ events: string[]; steps: number[]; types: string[] }> {
  const messages = (await feed.next()) ?? [];
  return {
    events: messages.flatMap((message) => (message.type === 'event' ? [message.data.id] : [])),
    steps: messages.flatMap((message) => (message.type === 'metrics' ? [message.data.step] : [])),
    types: messages.map((message) => message.type),
  };
}

test('all that is there, then only what is new, then the end', async () => {
  const job = new Job();
  job.say(250);
  for (let step = 0; step < 2_500; step++) job.points.push({ name: 'train_loss', step, value: step });
  const feed = job.feed();
  const first = await told(feed);
  expect(first.events).toEqual(job.events.map((event) => event.id));
  expect(first.steps).toEqual(Array.from({ length: 2_500 }, (_, step) => step));
  expect(await told(feed)).toEqual({ events: [], steps: [], types: [] });

  job.say();
  job.points.push({ name: 'valid_loss', step: 2_499, value: 1 }, { name: 'train_loss', step: 2_500, value: 1 });
  expect(await told(feed)).toMatchObject({ events: [job.events.at(-1)?.id], steps: [2_499, 2_500] });
  job.status = 'succeeded';
  expect((await told(feed)).types).toEqual(['job', 'end']);
});

test('of a very long history only the newest events', async () => {
  const job = new Job();
  job.say(1_500);
  const { events } = await told(job.feed());
  expect(events).toEqual(job.events.slice(-1_000).map((event) => event.id));
});

test('goes on from a position: events once, the last step again', async () => {
  const job = new Job();
  job.say(3);
  job.points.push({ name: 'train_loss', step: 1, value: 1 }, { name: 'train_loss', step: 2, value: 1 });
  const { events, steps } = await told(job.feed({ eventId: job.events[1]?.id ?? '', step: 2 }));
  expect(events).toEqual([job.events[2]?.id]);
  expect(steps).toEqual([2]);
});

test('pages of metrics hold whole steps, also one larger than a page', async () => {
  const job = new Job();
  for (const step of [1, 2]) for (const name of ['a', 'b', 'c']) job.points.push({ name, step, value: 0 });
  const page = async (limit: number, since?: number) => {
    const { data, has_more } = await metricPage(job.store, 'j', { limit, since_step: since });
    return [data.map(({ step, name }) => `${step}${name}`).join(' '), has_more];
  };
  expect(await page(4)).toEqual(['1a 1b 1c', true]);
  expect(await page(2)).toEqual(['1a 1b 1c', true]);
  expect(await page(4, 1)).toEqual(['2a 2b 2c', false]);
  expect(await page(6)).toEqual(['1a 1b 1c 2a 2b 2c', false]);
});
