import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentLogger } from '@tunefleet/foundation';
import { ManagedChild } from './managed-child';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'managed-child-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** A child that notes each of its starts and then does as `body` says. */
async function childOf(body: string, on: { refused?: (reason: string) => void; givenUp?: () => void }): Promise<ManagedChild> {
  const file = join(folder, 'child.mjs');
  await writeFile(file, `import { appendFileSync } from 'node:fs';\nappendFileSync(${JSON.stringify(join(folder, 'starts'))}, 'x');\n${body}\n`);
  const policy = { firstDelayMs: 1, maxDelayMs: 1, healthyAfterMs: 60_000, maxFailedStarts: 3 };
  const spec = { name: 'child', file, env: () => ({ PATH: process.env['PATH'] }), logFile: join(folder, 'log'), stopGraceMs: 5_000, onReady: () => undefined };
  return new ManagedChild({ ...spec, ...(on.refused === undefined ? {} : { onRefused: on.refused }) }, policy, silentLogger, () => on.givenUp?.());
}

const starts = async (): Promise<number> => (await readFile(join(folder, 'starts'), 'utf8')).length;

test('a child that was refused is not started again', async () => {
  let child: ManagedChild | undefined;
  const reason = await new Promise<string>((resolve, reject) => {
    void childOf(`process.send({ type: 'ready' }); process.send({ type: 'refused', reason: 'this worker was revoked' }, () => process.exit(1));`, { refused: resolve, givenUp: () => reject(new Error('given up')) }).then((made) => {
      child = made;
      made.start();
    });
  });
  expect(reason).toBe('this worker was revoked');
  expect([child?.pid, await starts()]).toEqual([undefined, 1]);
});

test('one that only dies is, until it is given up', async () => {
  await new Promise<void>((resolve) => void childOf('process.exit(1);', { givenUp: resolve, refused: () => undefined }).then((child) => child.start()));
  expect(await starts()).toBe(3);
});
