import { randomBytes } from 'node:crypto';
import { silentLogger, type Logger } from '@tunefleet/foundation';
import { jobQueueConformance } from '@tunefleet/ports/conformance';
import { TcpProxy, createDatabase, redisMissing, useDatabase, useRedis } from '@tunefleet/testing';
import { openQueue } from './open-queue';

const retry = { tries: 3, firstDelayMs: 5 };
const nowhere = 'postgres://127.0.0.1:1/none';

describe('on PostgreSQL', () => {
  const databaseUrl = useDatabase();
  let template: string;
  beforeAll(async () => {
    template = await createDatabase(databaseUrl());
    await (await openQueue({ postgresUrl: template, logger: silentLogger })).close();
  }, 60_000);

  jobQueueConformance('BullMQ on PostgreSQL', async () => {
    const proxy = await TcpProxy.start(await createDatabase(databaseUrl(), template));
    return {
      open: () => openQueue({ postgresUrl: proxy.url, logger: silentLogger, retry }),
      cut: () => proxy.cut(),
      vanish: () => proxy.vanish(),
    };
  });

  test('processes that start together bring the tables up to date once', async () => {
    const postgresUrl = await createDatabase(databaseUrl());
    const queues = await Promise.all([1, 2, 3].map(() => openQueue({ postgresUrl, logger: silentLogger })));
    expect(queues.map((queue) => queue.backend)).toEqual(['postgres', 'postgres', 'postgres']);
    await Promise.all(queues.map((queue) => queue.close()));
  });
});

(redisMissing === null ? describe : describe.skip)(`on Redis${redisMissing === null ? '' : `: skipped, ${redisMissing}`}`, () => {
  const redisUrl = useRedis();

  jobQueueConformance('BullMQ on Redis', async () => {
    const proxy = await TcpProxy.start(redisUrl());
    const prefix = randomBytes(6).toString('hex');
    return {
      open: () => openQueue({ redisUrl: proxy.url, postgresUrl: nowhere, prefix, logger: silentLogger, retry }),
      cut: () => proxy.cut(),
      vanish: () => proxy.vanish(),
    };
  });

  test('installations with different prefixes do not see each other', async () => {
    const [one, other] = await Promise.all(['one', 'other'].map((prefix) => openQueue({ redisUrl: redisUrl(), postgresUrl: nowhere, prefix, logger: silentLogger })));
    try {
      await one?.add({ id: 'm', queue: 'tune', payload: {} });
      expect(await one?.counts('tune')).toMatchObject({ waiting: 1 });
      expect(await other?.counts('tune')).toMatchObject({ waiting: 0 });
    } finally {
      await Promise.all([one?.close(), other?.close()]);
    }
  });
});

describe('when nobody answers', () => {
  const warnings: string[] = [];
  const logger: Logger = { ...silentLogger, warn: (_fields, message) => warnings.push(message), child: () => logger };

  test.each([
    ['PostgreSQL', 'DATABASE_URL', { postgresUrl: nowhere }],
    ['Redis', 'REDIS_URL', { postgresUrl: nowhere, redisUrl: 'redis://127.0.0.1:1' }],
  ])('opening says so: %s', async (store, variable, urls) => {
    await expect(openQueue({ ...urls, logger })).rejects.toMatchObject({ code: 'unavailable', message: expect.stringMatching(`the queue cannot use ${store}: .*ECONNREFUSED.* Check ${variable}`) });
    expect(warnings).toEqual([]);
  });
});
